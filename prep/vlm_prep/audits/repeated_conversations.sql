-- title: Long conversations that stand with several media
-- severity: W
-- threshold: least_chars = 200, shorter ones repeat by nature
-- threshold: most_media = 1, different media (or sets of them)
-- advice: Media were mixed up, or the text says nothing of them; look at some, then exclude them.
with alike as (
    select hash(text_hash) as half_hash
    from samples
    where status = 'kept' and text_chars >= $least_chars
    group by half_hash
    having count(*) > 1
)
select min(samples.dataset) as dataset, count(distinct media_hash) as num_media, count(*) as num_samples, min(samples.sample_id) as example, max(samples.sample_id) as another, any_value(text_chars) as text_chars
from samples
semi join alike on alike.half_hash = hash(samples.text_hash)
join audited using (sample_key)
where audited.selected and text_chars >= $least_chars
group by text_hash
having num_media > $most_media
order by num_samples desc, example, another
