-- Every row that an id means: a sample_id, or dataset/sample_id. $samples: files.
select *
from read_parquet($samples, filename = true)
where sample_id = $id or dataset || '/' || sample_id = $id
order by dataset, sample_id, filename
