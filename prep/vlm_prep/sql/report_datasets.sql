-- What each dataset trains on, and how many of its samples are held out for validation. From used and selection.
with held_out as (select dataset, count(*) as num_eval from selection where selected and split = 'eval' group by dataset),
trained as (
    select
        dataset,
        sum(total_tokens)::bigint as tokens,
        sum(supervised_tokens)::bigint as supervised_tokens,
        sum(num_images)::bigint as images,
        sum(num_videos)::bigint as videos
    from used
    group by dataset
)
select trained.*, coalesce(num_eval, 0) as num_eval
from trained
left join held_out using (dataset)
