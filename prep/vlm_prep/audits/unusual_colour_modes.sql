-- title: Pictures in CMYK or with 16 or 32 bits a channel
-- severity: W
-- advice: They are brought to 8-bit RGB when they are decoded; look whether that looks right.
select dataset, sample_id, name, mode
from audited_media
where kind = 'image' and (mode in ('CMYK', 'YCbCr', 'LAB', 'HSV', 'I', 'F') or mode like 'I;%') and selected
order by all
