-- title: Pictures that are nearly white
-- severity: I
-- threshold: most_luminance = 248, mean of 0 to 255
-- advice: See whether anything can be seen.
select decoded_media.dataset, decoded_media.sample_id, decoded_media.name, round(luminance, 2) as luminance
from decoded_media
join audited using (sample_key)
where luminance > $most_luminance and audited.selected
order by luminance desc, decoded_media.dataset, decoded_media.sample_id, decoded_media.name
