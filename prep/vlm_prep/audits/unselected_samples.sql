-- title: Samples that the mix does not use, by reason
-- severity: I
-- advice: vlm-prep sql MIX "select * from selection where not selected" lists them.
select dataset, reason, count(*) as num_samples, min(sample_id) as example
from selection
where not selected
group by all
order by dataset, num_samples desc, reason
