-- title: Addresses of the web in text
-- severity: I
-- advice: Answers with addresses teach to invent them.
select dataset, sample_id, alternative, turn, role, url as found
from turn_facts
where url is not null and selected
order by all
