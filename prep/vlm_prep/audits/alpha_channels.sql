-- title: Pictures with an alpha channel
-- severity: W
-- advice: They are put over white when they are decoded: what is white on transparent is lost.
select dataset, sample_id, name, mode
from audited_media
where kind = 'image' and mode in ('RGBA', 'LA', 'PA', 'La', 'RGBa') and selected
order by all
