-- Samples whose pictures are all like those of another sample, position by position. From near_pictures, labels (node, label).
create table near_groups as
with alike as (
    select near_pictures.sample_key, position, coalesce(labels.label, near) as near, exact
    from near_pictures
    left join labels on labels.node = near_pictures.near
),
shared as (
    select near, exact
    from alike
    group by near, exact
    having min(sample_key) <> max(sample_key)
),
all_shared as (
    select sample_key
    from alike
    left join shared on alike.near is not distinct from shared.near and alike.exact is not distinct from shared.exact
    group by sample_key
    having count(*) = count(coalesce(shared.near::varchar, shared.exact))
)
select sample_key, string_agg(coalesce(near::varchar, exact), ' ' order by position) as pictures
from alike
semi join all_shared using (sample_key)
group by sample_key
