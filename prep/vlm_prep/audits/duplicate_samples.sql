-- title: Samples with the same conversation and the same media
-- severity: W
-- advice: [mix.select.duplicates] by = "both" keeps one of each.
select min(samples.dataset) as dataset, count(*) as num_samples, min(samples.sample_id) as example, max(samples.sample_id) as another
from samples
join audited using (sample_key)
where audited.selected
group by text_hash, media_hash
having num_samples > 1
order by num_samples desc, dataset, example, another
