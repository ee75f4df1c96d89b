-- A row per sample that either mix has converted: is it used in each, in which split, and if not, why.
-- $selection_a, $selection_b: files; rejected_a, rejected_b: tables of the samples that conversion left out.
create table compared as
with a as (select * from read_parquet($selection_a)),
b as (select * from read_parquet($selection_b))
select
    coalesce(a.dataset, b.dataset) as dataset,
    coalesce(a.sample_id, b.sample_id) as sample_id,
    sample_key,
    coalesce(a.selected, false) as used_a,
    coalesce(b.selected, false) as used_b,
    a.split as split_a,
    b.split as split_b,
    case when a.sample_key is null then coalesce(rejected_a.reason, 'not_converted') else a.reason end as reason_a,
    case when b.sample_key is null then coalesce(rejected_b.reason, 'not_converted') else b.reason end as reason_b,
    a.total_tokens as tokens_a,
    b.total_tokens as tokens_b,
    a.supervised_tokens as supervised_a,
    b.supervised_tokens as supervised_b
from a
full join b using (sample_key)
left join rejected_a using (sample_key)
left join rejected_b using (sample_key)
