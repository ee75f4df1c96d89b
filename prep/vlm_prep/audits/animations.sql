-- title: Animated pictures
-- severity: W
-- advice: Only their first frame is used; make videos of them if the others count.
select dataset, sample_id, name, format
from audited_media
where kind = 'image' and animated and selected
order by all
