-- How many samples of each dataset were rejected at conversion, by reason, with one example. $samples: files.
select dataset, reason, count(*) as num_samples, min(sample_id) as example, arg_min(detail, sample_id) as detail
from read_parquet($samples)
where status = 'rejected'
group by dataset, reason
order by dataset, num_samples desc, reason
