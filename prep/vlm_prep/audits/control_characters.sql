-- title: Control characters in text
-- severity: W
-- advice: They come from a broken export; take them out in the source.
select dataset, sample_id, alternative, turn, role, '\x' || hex(control_character) as found
from turn_facts
where '\x' || hex(control_character) is not null and control_character is not null and selected
order by all
