-- title: Phrases of an assistant that say nothing
-- severity: W
-- advice: Take them out: a model repeats them everywhere.
select dataset, sample_id, alternative, turn, role, boilerplate as found
from turn_facts
where boilerplate is not null and selected
order by all
