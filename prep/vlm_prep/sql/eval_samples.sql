-- The samples of the eval split: whole groups of samples that share media, in seeded order, until there are enough.
-- Relation labels: node (a sample_key), label (the least media hash of the group). $seed, $datasets ([] is all), $fraction, $num_samples (of each dataset).
insert into eval_samples
with grouped as (
    select remaining.dataset, remaining.sample_key, labels.label, md5(concat_ws('/', 'eval', $seed::varchar, labels.label)) as place
    from remaining
    join labels on labels.node = remaining.sample_key
    where len($datasets::varchar[]) = 0 or list_contains($datasets::varchar[], dataset)
),
placed as (
    select
        *,
        count(*) over (partition by dataset) as num_remaining,
        count(*) over (partition by dataset order by place, label rows between unbounded preceding and current row) as number
    from grouped
),
chosen_groups as (
    select distinct label
    from placed
    where number <= coalesce($num_samples, round($fraction * num_remaining))
)
select node
from labels
semi join chosen_groups using (label)
anti join eval_samples on eval_samples.sample_key = labels.node
