-- title: Samples with the same conversation and the same media
-- severity: W
-- advice: [mix.select.duplicates] by = "both" keeps one of each.
with alike as (
    select hash(text_hash, media_hash) as both_hash
    from samples
    where status = 'kept'
    group by both_hash
    having count(*) > 1
)
select min(samples.dataset) as dataset, count(*) as num_samples, min(samples.sample_id) as example, max(samples.sample_id) as another
from samples
semi join alike on alike.both_hash = hash(samples.text_hash, samples.media_hash)
join audited using (sample_key)
where audited.selected
group by text_hash, media_hash
having num_samples > 1
order by num_samples desc, dataset, example, another
