-- The samples that the report shows: those that $wanted names, then some of every door of every dataset, then as many of each
-- as its share, in a seeded order. From samples, selection and wanted.
create table chosen as
with every as (
    select
        samples.dataset, samples.sample_id, samples.sample_key,
        case when samples.status <> 'kept' then 'rejected' when selection.selected then selection.split else 'left_out' end as state,
        coalesce(samples.reason, selection.reason) as reason,
        samples.detail,
        selection.total_tokens, selection.supervised_tokens,
        wanted.dataset is not null as is_wanted,
        xor(samples.sample_key, $salt::ubigint) as place
    from samples
    left join selection using (sample_key)
    left join wanted on wanted.dataset = samples.dataset and wanted.sample_id = samples.sample_id
),
ranked as (
    select
        *,
        row_number() over (partition by dataset, state, reason order by place, sample_id) as nth,
        count(*) over (partition by dataset, state, reason) as num_alike,
        count(*) over () as num_samples
    from every
)
select * exclude (nth, num_alike, num_samples), row_number() over (order by is_wanted desc, nth > $least, place, sample_id) as position
from ranked
where is_wanted or nth <= greatest($least, ceil($most * num_alike / num_samples))
qualify position <= $most
