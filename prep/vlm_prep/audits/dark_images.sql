-- title: Dark pictures
-- severity: I
-- threshold: least_luminance = 25, mean of 0 to 255
-- advice: See whether anything can be seen.
select decoded_media.dataset, decoded_media.sample_id, decoded_media.name, round(luminance, 2) as luminance
from decoded_media
join audited using (sample_key)
where luminance < $least_luminance and audited.selected
order by luminance, decoded_media.dataset, decoded_media.sample_id, decoded_media.name
