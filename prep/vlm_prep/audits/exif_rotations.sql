-- title: Pictures that EXIF turns or mirrors
-- severity: W
-- advice: They are turned when they are decoded; boxes in the text must mean the turned picture.
select dataset, sample_id, name, orientation, width, height
from audited_media
where kind = 'image' and orientation > 1 and selected
order by all
