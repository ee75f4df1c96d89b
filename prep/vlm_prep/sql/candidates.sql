-- The samples that selection decides about: the kept ones, with the lengths of their longest alternative. $samples, $lengths: files.
create table candidates as
with lengths as (
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
)
select
    samples.dataset, samples.sample_id, samples.sample_key, samples.num_alternatives,
    samples.part, samples.shard, samples.index_in_shard,
    samples.num_images, samples.num_videos, samples.text_hash, samples.media_hash,
    longest.total_tokens, longest.full_tokens, longest.supervised_tokens, longest.vision_patches,
    problems.problem, problems.least_supervised_tokens
from read_parquet($samples) as samples
join problems using (sample_key)
join lengths as longest on longest.sample_key = samples.sample_key and longest.nth_longest = 1
where samples.status = 'kept'
