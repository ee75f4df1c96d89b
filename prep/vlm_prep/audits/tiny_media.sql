-- title: Media with a side under a patch or so
-- severity: E
-- threshold: least_side = 28, pixels
-- advice: Nothing can be seen in them; exclude them with [mix.select.where] "min_side is null or min_side >= 28".
select dataset, sample_id, name, width, height
from audited_media
where least(width, height) < $least_side
order by all
