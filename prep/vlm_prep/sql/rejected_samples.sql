-- The samples that conversion left out. $samples: files.
select sample_key, 'rejected:' || any_value(reason) as reason
from read_parquet($samples)
where status = 'rejected'
group by sample_key
