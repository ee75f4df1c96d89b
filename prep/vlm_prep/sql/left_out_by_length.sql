-- Samples that cannot become tokens, are too long, or have nothing to learn from. $model_max_length.
insert into left_out
select sample_key, reason
from (
    select
        sample_key,
        case
            when problem is not null then problem
            when total_tokens > $model_max_length then 'longer_than_model_max_length'
            when least_supervised_tokens = 0 then 'no_supervised_tokens'
        end as reason
    from remaining
)
where reason is not null
