-- title: Ids of samples that occur more than once
-- severity: E
-- advice: Two parts hold the same samples, or two ids have one key; vlm-prep verify says more.
with twice as (select sample_key from samples group by sample_key having count(*) > 1)
select min(dataset) as dataset, min(sample_id) as sample_id, max(sample_id) as another, count(*) as num_samples
from samples
semi join twice using (sample_key)
group by sample_key
order by all
