-- title: Pictures so large that they are not decoded
-- severity: E
-- threshold: most_pixels = 178956970, Pillow's own limit
-- advice: A decompression bomb, or a scan to be made smaller; Pillow refuses more pixels.
select dataset, sample_id, name, width, height
from audited_media
where kind = 'image' and width::bigint * height > $most_pixels
order by all
