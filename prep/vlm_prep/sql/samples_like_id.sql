-- The samples whose ids look most like one that is not there; one that the source itself calls so comes first. $samples: files.
with named as (
    select dataset || '/' || sample_id as name, sample_id, coalesce(source_id = $id, false) as is_own_id
    from read_parquet($samples)
)
select name
from named
where
    is_own_id
    or contains(name, $id)
    or jaro_winkler_similarity(sample_id, $id, 0.8) > 0
    or jaro_winkler_similarity(name, $id, 0.8) > 0
group by name
order by
    bool_or(is_own_id) desc,
    contains(name, $id) desc,
    max(greatest(jaro_winkler_similarity(sample_id, $id), jaro_winkler_similarity(name, $id))) desc,
    name
limit $most
