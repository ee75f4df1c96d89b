-- A row per sample whose row in the selection is not what the index tables say; at most 100. $selection, $samples: files.
with kept as (
    select dataset, sample_id, sample_key, num_alternatives, part, shard, index_in_shard
    from read_parquet($samples)
    where status = 'kept'
),
chosen as (
    select *, count(*) over (partition by dataset, sample_id) as num_rows
    from read_parquet($selection)
),
judged as (
    select
        coalesce(kept.dataset, chosen.dataset) as dataset,
        coalesce(kept.sample_id, chosen.sample_id) as sample_id,
        case
            when chosen.sample_id is null then 'a kept sample without a row'
            when kept.sample_id is null then 'a row without a kept sample'
            when chosen.num_rows > 1 then 'more than one row'
            when chosen.selected <> (chosen.reason is null) then 'selected and reason disagree'
            when (kept.sample_key, kept.num_alternatives, kept.part, kept.shard, kept.index_in_shard)
                is distinct from
                (chosen.sample_key, chosen.num_alternatives, chosen.part, chosen.shard, chosen.index_in_shard)
                then 'another place or key than samples.parquet says'
        end as problem
    from kept
    full join chosen on kept.dataset = chosen.dataset and kept.sample_id = chosen.sample_id
)
select distinct dataset, sample_id, problem
from judged
where problem is not null
order by dataset, sample_id
limit 100
