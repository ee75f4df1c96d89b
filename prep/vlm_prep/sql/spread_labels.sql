-- One round: a hash takes the least label of the samples that hold it, a sample the least of its hashes.
create or replace table next_labels as
with label_of_hash as (
    select hash, min(label) as label
    from media_edges
    join labels using (sample_key)
    group by hash
)
select sample_key, min(label_of_hash.label) as label
from media_edges
join label_of_hash using (hash)
group by sample_key
