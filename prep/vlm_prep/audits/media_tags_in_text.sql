-- title: Tags of media left over as text
-- severity: E
-- advice: No medium stands in their place: list the media of the record apart, use items, or take the tags out.
select dataset, sample_id, alternative, turn, role, media_tag as found
from turn_facts
where media_tag is not null and role <> 'assistant'
order by all
