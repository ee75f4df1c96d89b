-- title: One medium in several samples, by dataset
-- severity: I
-- advice: Usual where there are several questions to a picture; medium_reuse says where it is too often.
with shared as (
    select hash
    from audited_media
    where selected
    group by hash
    having min(sample_key) <> max(sample_key)
),
uses as (
    select dataset, hash, count(distinct sample_key) as num_samples, min(sample_id) as example
    from audited_media
    semi join shared using (hash)
    where selected
    group by dataset, hash
)
select dataset, count(*) as num_media, sum(num_samples)::bigint as num_samples, max(num_samples) as most, arg_max(example, (num_samples, example)) as example
from uses
where num_samples > 1
group by dataset
order by dataset
