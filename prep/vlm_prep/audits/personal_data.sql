-- title: E-mail addresses, telephone numbers and keys in text
-- severity: W
-- advice: Take them out, or exclude the samples. Of keys only the beginning is shown.
select dataset, sample_id, alternative, turn, kind, found
from (
    select dataset, sample_id, alternative, turn, 'e-mail address' as kind, email as found from turn_facts where email is not null and selected
    union all
    select dataset, sample_id, alternative, turn, 'telephone number', phone from turn_facts where phone is not null and selected
    union all
    select dataset, sample_id, alternative, turn, 'key', secret || '...' from turn_facts where secret is not null and selected
)
order by all
