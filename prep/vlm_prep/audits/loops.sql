-- title: Answers that end in a loop
-- severity: W
-- advice: They were generated without an end; exclude them.
select dataset, sample_id, alternative, turn, role, loop as found
from turn_facts
where loop is not null and selected
order by all
