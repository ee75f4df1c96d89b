-- title: Turns of a user inside an assistant's answer
-- severity: W
-- advice: Two turns were joined; split them in the source.
select dataset, sample_id, alternative, turn, role, foreign_turn as found
from turn_facts
where foreign_turn is not null and selected
order by all
