-- title: Roles in a wrong order
-- severity: E
-- advice: A conversation is one system turn or none, then user and assistant in turn, and ends with the assistant; mend the source or exclude the samples.
select dataset, sample_id, alternative, roles
from conversation_facts
where roles not like '%x%' and not regexp_full_match(roles, 's?(ua)+')
order by all
