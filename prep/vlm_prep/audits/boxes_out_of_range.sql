-- title: Boxes or points outside of the picture
-- severity: E
-- advice: Coordinates run from 0 to 1, from 0 to 1000, or over the pixels of the picture; an end comes after its beginning.
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
),
sizes as (select sample_key, max(width) as width, max(height) as height from audited_media group by sample_key)
select dataset, sample_id, alternative, turn, place
from numbers
left join sizes using (sample_key)
where list_min(n) < 0
    or (len(n) = 4 and (n[3] < n[1] or n[4] < n[2]))
    or greatest(n[1], coalesce(n[3], 0)) > greatest(1000, width)
    or greatest(n[2], coalesce(n[4], 0)) > greatest(1000, height)
order by all
