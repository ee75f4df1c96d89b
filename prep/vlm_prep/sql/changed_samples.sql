-- What became other from mix a to mix b, counted, with examples. From compared and other_content. $most: examples.
with changes as (
    select *, 'entered' as change, reason_a as reason, null::integer as lost, null::integer as gained from compared where used_b and not used_a
    union all
    select *, 'left', reason_b, null, null from compared where used_a and not used_b
    union all
    select *, 'other_split', split_a || ' -> ' || split_b, null, null from compared where used_a and used_b and split_a <> split_b
    union all
    select *, 'other_length', null, tokens_a, tokens_b
    from compared
    where used_a and used_b and (tokens_a <> tokens_b or supervised_a <> supervised_b)
    union all
    select compared.*, 'other_content', case when not has_other_text then 'media' when not has_other_media then 'text' else 'text and media' end, null, null
    from compared
    join other_content using (sample_key)
    where used_a and used_b
)
select
    dataset, change, reason,
    count(*) as num_samples,
    sum(lost)::bigint as tokens_a,
    sum(gained)::bigint as tokens_b,
    min(sample_id, $most) as examples
from changes
group by dataset, change, reason
order by dataset, change, num_samples desc, reason
