-- One round: a hub takes the least label of the nodes at it, a node the least of its hubs. From edges (node, hub), labels (node, label).
create or replace table next_labels as
with label_of_hub as (
    select hub, min(label) as label
    from edges
    join labels using (node)
    group by hub
)
select node, min(label_of_hub.label) as label
from edges
join label_of_hub using (hub)
group by node
