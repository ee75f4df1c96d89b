-- title: Blurred pictures
-- severity: I
-- threshold: least_sharpness = 10, variance of the Laplacian
-- threshold: least_contrast = 4, low_information_images has those below
-- advice: Look at some: drawings with few edges are here too.
select decoded_media.dataset, decoded_media.sample_id, decoded_media.name, round(sharpness, 2) as sharpness
from decoded_media
join audited using (sample_key)
where sharpness < $least_sharpness and contrast >= $least_contrast and audited.selected
order by sharpness, decoded_media.dataset, decoded_media.sample_id, decoded_media.name
