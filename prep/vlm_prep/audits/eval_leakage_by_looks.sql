-- title: Pictures on both sides of the validation split that look alike
-- severity: E
-- advice: Exclude those of the train side: the validation loss would measure memory.
with held_out as (
    select phash, min(decoded_media.sample_id) as eval_sample
    from decoded_media
    semi join eval_samples using (sample_key)
    where phash is not null and bit_count(phash::bit) between 8 and 56
    group by phash
)
select decoded_media.dataset, decoded_media.sample_id, decoded_media.name, held_out.eval_sample
from decoded_media
join held_out using (phash)
join audited using (sample_key)
where audited.selected and split = 'train'
order by all
