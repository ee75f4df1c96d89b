-- title: Pictures of nearly one colour
-- severity: I
-- threshold: least_contrast = 4, standard deviation of 0 to 255
-- advice: They show nothing to learn from; exclude them.
select decoded_media.dataset, decoded_media.sample_id, decoded_media.name, round(contrast, 2) as contrast
from decoded_media
join audited using (sample_key)
where contrast < $least_contrast and audited.selected
order by contrast, decoded_media.dataset, decoded_media.sample_id, decoded_media.name
