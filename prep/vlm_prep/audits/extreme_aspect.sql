-- title: Media much longer than they are wide
-- severity: E
-- threshold: most_ratio = 200, longer side over shorter side
-- advice: Little is left of them after resizing, and processors refuse some; crop or exclude them.
select dataset, sample_id, name, width, height
from audited_media
where greatest(width, height) > $most_ratio * least(width, height)
order by all
