-- A row per kept sample: is it in the mix, in which split, and if not, why. The first reason that held is the one given (semantics B1).
select
    dataset,
    sample_id,
    sample_key,
    left_out.reason is null as selected,
    left_out.reason as reason,
    case when eval_samples.sample_key is not null then 'eval' else 'train' end as split,
    num_alternatives,
    part,
    shard,
    index_in_shard,
    total_tokens,
    full_tokens,
    supervised_tokens,
    vision_patches
from candidates
left join left_out using (sample_key)
left join eval_samples using (sample_key)
order by dataset, sample_id
