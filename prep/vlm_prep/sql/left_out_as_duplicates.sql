-- All but one of the samples that are alike. $by: text | media | both; $priority: datasets, those to keep first; $across: over all datasets.
insert into left_out
with places as (
    select
        sample_key,
        row_number() over (
            partition by
                case when $by in ('text', 'both') then text_hash end,
                case when $by in ('media', 'both') then media_hash end,
                case when not $across then dataset end
            order by coalesce(list_position($priority::varchar[], dataset), len($priority::varchar[]) + 1), sample_key
        ) as place
    from remaining
    where $by <> 'media' or num_images + num_videos > 0
)
select sample_key, 'duplicate_of_' || $by
from places
where place > 1
