-- A row per conversation that is looked at: what turn_facts says of it as a whole.
create view conversation_facts as
select dataset, sample_id, sample_key, selected, split, alternative, roles
from turn_facts
where turn = 0
