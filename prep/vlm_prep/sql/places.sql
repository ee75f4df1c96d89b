-- A row per box or point in the conversations that speak of places: as it is written, and its numbers.
create view places as
with speaking as (select distinct sample_key from turn_facts where speaks_of_places),
found as (
    select dataset, sample_id, sample_key, selected, alternative, turn, unnest(list_concat(coalesce(boxes, []), coalesce(points, []))) as place
    from turn_facts
    semi join speaking using (sample_key)
    where len(boxes) > 0 or len(points) > 0
)
select *, regexp_extract_all(regexp_replace(place, '^[a-z_]*2d', ''), '-?\d+(?:\.\d+)?')::double[] as numbers
from found
