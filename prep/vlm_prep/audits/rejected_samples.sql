-- title: Samples that conversion has rejected, by reason
-- severity: I
-- advice: vlm-prep sql PATH "select * from samples where status = 'rejected'" lists them.
select dataset, reason, count(*) as num_samples, min(sample_id) as example
from samples
where status = 'rejected'
group by all
order by dataset, num_samples desc, reason
