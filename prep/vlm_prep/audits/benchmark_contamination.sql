-- title: Samples that share a medium or a text with a benchmark
-- severity: W
-- threshold: least_chars = 200, of samples with media; shorter text repeats by nature
-- advice: [mix.select] held_out leaves them out.
select dataset, sample_id, min(what) as what
from (
    select dataset, sample_id, 'medium' as what
    from audited_media
    semi join (select distinct try_cast(hash as uuid) as hash from benchmarks) as known using (hash)
    where selected
    union all
    select samples.dataset, samples.sample_id, 'text'
    from samples
    semi join (select hash as text_hash from benchmarks) as known using (text_hash)
    join audited using (sample_key)
    where audited.selected and (text_chars >= $least_chars or num_images + num_videos = 0)
)
group by dataset, sample_id
order by dataset, sample_id
