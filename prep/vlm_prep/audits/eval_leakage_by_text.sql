-- title: Conversations on both sides of the validation split
-- severity: E
-- threshold: least_chars = 200, of samples with media; shorter text repeats by nature
-- advice: Exclude those of the train side, or look for duplicates by text first.
with held_out as (
    select text_hash, min(samples.sample_id) as eval_sample
    from samples
    semi join eval_samples using (sample_key)
    where text_chars >= $least_chars or num_images + num_videos = 0
    group by text_hash
)
select samples.dataset, samples.sample_id, held_out.eval_sample
from samples
join held_out using (text_hash)
join audited using (sample_key)
where audited.selected and split = 'train'
order by all
