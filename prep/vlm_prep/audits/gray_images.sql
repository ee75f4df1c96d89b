-- title: Pictures without colour, by dataset
-- severity: I
-- advice: Good to know where questions ask for colours.
select decoded_media.dataset, count(*) filter (is_gray) as num_gray, count(*) as num_images, min(decoded_media.sample_id) filter (is_gray) as example
from decoded_media
join audited using (sample_key)
where is_gray is not null and audited.selected
group by decoded_media.dataset
having num_gray > 0
order by decoded_media.dataset
