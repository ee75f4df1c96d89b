-- title: Ids of samples that occur more than once
-- severity: E
-- advice: Two parts hold the same samples, or two ids have one key; vlm-prep verify says more.
select min(dataset) as dataset, min(sample_id) as sample_id, max(sample_id) as another, count(*) as num_samples
from samples
group by sample_key
having num_samples > 1
order by all
