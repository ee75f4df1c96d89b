-- A row per kept sample: is it in the mix, and if not, why (semantics B1). The first reason that holds is the one given.
-- The relation refused: sample_key, reason of what a condition leaves out. $samples, $lengths: files; $datasets, $fractions: parallel lists; $include_video, $model_max_length, $seed.
with datasets as (
    select unnest($datasets::varchar[]) as dataset, unnest($fractions::double[]) as fraction
),
lengths as (
    select *, row_number() over (partition by sample_key order by total_tokens desc, alternative) as nth_longest
    from read_parquet($lengths)
),
problems as (
    select
        sample_key,
        min(split_part(problem, ':', 1)) as problem,
        min(supervised_tokens) as least_supervised_tokens
    from lengths
    group by sample_key
),
judged as (
    select
        samples.dataset,
        samples.sample_id,
        samples.sample_key,
        samples.num_alternatives,
        samples.part,
        samples.shard,
        samples.index_in_shard,
        longest.total_tokens,
        longest.supervised_tokens,
        longest.vision_patches,
        case
            when samples.num_videos > 0 and not $include_video then 'video_not_included'
            when refused.reason is not null then refused.reason
            when problems.problem is not null then problems.problem
            when longest.total_tokens > $model_max_length then 'longer_than_model_max_length'
            when problems.least_supervised_tokens = 0 then 'no_supervised_tokens'
        end as reason
    from read_parquet($samples) as samples
    join problems using (sample_key)
    join lengths as longest on longest.sample_key = samples.sample_key and longest.nth_longest = 1
    left join refused on refused.sample_key = samples.sample_key
    where samples.status = 'kept'
),
ranked as (
    select
        judged.*,
        datasets.fraction,
        count(*) filter (where reason is null) over (partition by dataset) as num_usable,
        row_number() over (
            partition by dataset, reason is null
            order by md5(concat_ws('/', 'subsample', $seed::varchar, dataset, sample_id)), sample_id
        ) as place
    from judged
    join datasets using (dataset)
),
sampled as (
    select
        *,
        case
            when reason is not null then reason
            when fraction < 1 and place > round(fraction * num_usable) then 'not_in_subsample'
        end as final_reason
    from ranked
)
select
    dataset,
    sample_id,
    sample_key,
    final_reason is null as selected,
    final_reason as reason,
    'train' as split,
    num_alternatives,
    part,
    shard,
    index_in_shard,
    total_tokens,
    supervised_tokens,
    vision_patches
from sampled
order by dataset, sample_id
