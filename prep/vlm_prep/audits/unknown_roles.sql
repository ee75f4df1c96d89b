-- title: Roles that no chat template knows
-- severity: E
-- advice: Only system, user and assistant are rendered; rename the roles in the source.
select dataset, sample_id, alternative, turn, role
from turn_facts
where role is null or role not in ('system', 'user', 'assistant')
order by all
