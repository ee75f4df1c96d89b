-- title: Turns with neither text nor media
-- severity: W
-- advice: An empty answer teaches to say nothing; an empty question asks nothing. Exclude them.
select dataset, sample_id, alternative, turn, role
from turn_facts
where is_blank and num_images + num_videos = 0 and selected
order by all
