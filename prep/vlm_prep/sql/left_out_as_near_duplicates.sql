-- All but one of the samples of each near group; with $by = 'both' of those of it that have one text.
-- $priority: datasets, those to keep first; $across: over all datasets.
insert into left_out
with places as (
    select
        sample_key,
        row_number() over (
            partition by pictures, case when $by = 'both' then text_hash end, case when not $across then dataset end
            order by coalesce(list_position($priority::varchar[], dataset), len($priority::varchar[]) + 1), sample_key
        ) as place
    from remaining
    join near_groups using (sample_key)
)
select sample_key, 'near_duplicate'
from places
where place > 1
