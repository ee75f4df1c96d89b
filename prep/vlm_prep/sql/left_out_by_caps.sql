-- Train samples beyond what a dataset may have, in seeded order. $datasets, $fractions, $max_samples, $max_tokens: parallel lists; $seed.
insert into left_out
with datasets as (
    select
        unnest($datasets::varchar[]) as dataset,
        unnest($fractions::double[]) as fraction,
        unnest($max_samples::bigint[]) as max_samples,
        unnest($max_tokens::bigint[]) as max_tokens
),
train as (select * from remaining anti join eval_samples using (sample_key)),
ranked as (
    select
        train.*,
        datasets.* exclude (dataset),
        count(*) over (partition by train.dataset) as num_usable,
        row_number() over in_order as place,
        sum(total_tokens) over in_order as tokens_up_to_here
    from train
    join datasets using (dataset)
    window in_order as (
        partition by train.dataset
        order by md5(concat_ws('/', 'subsample', $seed::varchar, train.dataset, sample_id)), sample_id
        rows between unbounded preceding and current row
    )
)
select sample_key, reason
from (
    select
        sample_key,
        case
            when fraction < 1 and place > round(fraction * num_usable) then 'not_in_subsample'
            when place > max_samples then 'over_max_samples'
            when tokens_up_to_here > max_tokens then 'over_max_tokens'
        end as reason
    from ranked
)
where reason is not null
