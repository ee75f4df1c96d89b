-- The buckets of more than $max_bucket hashes with equal bits in $mask. From hashes (hash).
create or replace table crowded as
select hash & $mask::ubigint as bucket, count(*) as num_hashes
from hashes
group by bucket
having count(*) > $max_bucket
