-- title: Boxes or points outside of the picture
-- severity: E
-- advice: Coordinates run from 0 to 1, from 0 to 1000, or over the pixels of the picture; an end comes after its beginning.
with sizes as (
    select sample_key, max(width) as width, max(height) as height
    from audited_media
    semi join places using (sample_key)
    group by sample_key
)
select dataset, sample_id, alternative, turn, place
from (select *, numbers as n from places where selected)
left join sizes using (sample_key)
where list_min(n) < 0
    or (len(n) = 4 and (n[3] < n[1] or n[4] < n[2]))
    or greatest(n[1], coalesce(n[3], 0)) > greatest(1000, width)
    or greatest(n[2], coalesce(n[4], 0)) > greatest(1000, height)
order by all
