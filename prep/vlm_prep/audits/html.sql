-- title: HTML in text
-- severity: W
-- advice: Take tags and entities out, unless the task is to write HTML.
select dataset, sample_id, alternative, turn, role, html as found
from turn_facts
where html is not null and selected
order by all
