-- title: Media that an epoch shows very often
-- severity: W
-- threshold: most_uses = 50, in one epoch
-- advice: Samples with it times repeats of their datasets; cap the samples of a picture, or lower the weight.
with repeats as (select name as dataset, num_draws / num_selected as repeats from datasets where num_selected > 0),
often as (
    select hash, sum(repeats) as uses
    from audited_media
    join repeats using (dataset)
    where selected
    group by hash
    having uses > $most_uses
)
select min(dataset) as dataset, replace(hash::varchar, '-', '') as xxh3_128, round(any_value(uses), 1) as uses_per_epoch, count(distinct sample_key) as num_samples, min(sample_id) as example
from audited_media
join often using (hash)
where selected
group by hash
order by uses_per_epoch desc, xxh3_128
