-- title: Answers that refuse
-- severity: W
-- advice: They teach to refuse; exclude them where the question is harmless.
select dataset, sample_id, alternative, turn, role, refusal as found
from turn_facts
where refusal is not null and selected
order by all
