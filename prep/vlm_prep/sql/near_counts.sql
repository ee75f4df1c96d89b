-- What is said of near pictures that are still there: groups of samples whose pictures are not the same bytes, and samples in them.
select count(*) as num_groups, coalesce(sum(num_samples), 0)::bigint as num_samples
from (
    select count(*) as num_samples
    from remaining
    join near_groups using (sample_key)
    group by pictures, case when not $across then dataset end
    having count(distinct media_hash) > 1
)
