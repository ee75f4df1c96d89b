-- title: Samples that do not lie in their shard one after the other
-- severity: E
-- advice: The index does not fit the shards; vlm-prep verify CONFIG --repair makes the part anew.
with in_shards as (
    select part, shard, count(*) as num_samples, min(byte_begin) as byte_begin, max(byte_end) as byte_end, sum(byte_end - byte_begin) as bytes, max(index_in_shard) as last
    from samples
    where status = 'kept'
    group by part, shard
)
select shards.dataset, shards.part, shards.file, shards.num_samples, in_shards.num_samples as num_indexed, shards.bytes, in_shards.byte_end
from shards
left join in_shards using (part, shard)
where shards.num_samples is distinct from in_shards.num_samples or in_shards.byte_end <> shards.bytes
    or in_shards.bytes <> in_shards.byte_end - in_shards.byte_begin or last <> shards.num_samples - 1
order by all
