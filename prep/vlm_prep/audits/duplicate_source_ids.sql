-- title: Ids of the source that several samples have
-- severity: W
-- advice: Nothing here relies on them; whoever joins tables by them should know.
select dataset, source_id, count(*) as num_samples, min(sample_id) as example
from samples
where source_id is not null
group by dataset, source_id
having num_samples > 1
order by num_samples desc, dataset, source_id
