-- title: Special tokens of a chat template as text
-- severity: E
-- advice: They are left over from another template and fake the ends of turns; take them out in the source.
select dataset, sample_id, alternative, turn, role, special_token as found
from turn_facts
where special_token is not null and true
order by all
