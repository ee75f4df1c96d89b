-- title: Boxes or points of several conventions in one dataset
-- severity: E
-- advice: Bring them to one: fractions, thousandths or pixels; a model cannot tell which is meant.
with speaking as (select distinct sample_key from turn_facts where speaks_of_places),
places as (
    select dataset, sample_id, sample_key, alternative, turn, unnest(list_concat(coalesce(boxes, []), coalesce(points, []))) as place
    from turn_facts
    semi join speaking using (sample_key)
    where (len(boxes) > 0 or len(points) > 0) and selected
),
numbers as (
    select *, regexp_extract_all(regexp_replace(place, '^[a-z_]*2d', ''), '-?\d+(?:\.\d+)?')::double[] as n
    from places
)
select
    dataset,
    count(*) filter (list_max(n) <= 1) as num_fractions,
    count(*) filter (list_max(n) > 1 and list_max(n) <= 1000) as num_thousandths,
    count(*) filter (list_max(n) > 1000) as num_pixels,
    min(sample_id) filter (list_max(n) <= 1) as example_of_fractions,
    min(sample_id) filter (list_max(n) > 1000) as example_of_pixels
from numbers
where list_min(n) >= 0 and list_max(n) > 0
group by dataset
having (num_fractions > 0 and num_thousandths + num_pixels > 0)
order by dataset
