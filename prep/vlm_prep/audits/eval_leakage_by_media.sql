-- title: Media on both sides of the validation split
-- severity: E
-- advice: Build the mix again: samples that share a medium are kept on one side.
with held_out as (select hash, min(sample_id) as eval_sample from audited_media where selected and split = 'eval' group by hash)
select media.dataset, media.sample_id, media.name, held_out.eval_sample
from audited_media as media
join held_out using (hash)
where selected and split = 'train' and exists (from eval_samples)
order by all
