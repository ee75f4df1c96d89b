-- title: Shards too small or too large
-- severity: W
-- threshold: least_shards = 20, fewer are not many
-- threshold: least_mean_bytes = 1048576, bytes
-- threshold: most_bytes = 134217728, bytes, of more than one sample
-- advice: Small ones cost a request each, large ones memory; join small source files, or split large ones.
select dataset, count(*) as num_shards, (sum(bytes) // count(*))::bigint as mean_bytes, max(bytes) filter (num_samples > 1) as most_bytes
from shards
group by dataset
having (num_shards >= $least_shards and mean_bytes < $least_mean_bytes) or max(bytes) filter (num_samples > 1) > $most_bytes
order by dataset
