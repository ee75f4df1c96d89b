-- Two samples with one id, or two ids with one 64-bit key. $samples: files.
select sample_key, min(dataset) as dataset, min(sample_id) as sample_id, max(sample_id) as other_id
from read_parquet($samples)
group by sample_key
having count(*) > 1
order by sample_key
limit 1
