-- title: Text that was decoded by the wrong character set
-- severity: W
-- advice: Decode the source anew as UTF-8 (ftfy mends most of it).
select dataset, sample_id, alternative, turn, role, mojibake as found
from turn_facts
where mojibake is not null and selected
order by all
