-- title: Images, videos or their tags in an assistant's turn
-- severity: E
-- advice: A model would learn to write a placeholder; move the media to the user's turn.
select dataset, sample_id, alternative, turn, num_images, num_videos, media_tag as found
from turn_facts
where role = 'assistant' and (num_images + num_videos > 0 or media_tag is not null)
order by all
