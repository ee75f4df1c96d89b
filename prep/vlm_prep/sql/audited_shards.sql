-- Without a mix an audit looks at every kept sample.
create view audited as
select
    dataset, sample_id, sample_key, true as selected, 'train' as split,
    null::integer as total_tokens, null::integer as supervised_tokens, null::integer as vision_patches
from samples
where status = 'kept'
