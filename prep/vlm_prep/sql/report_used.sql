-- The samples that a mix trains on, with what the report counts of them. From selection and samples.
create table used as
select
    selection.dataset, selection.sample_key, selection.total_tokens, selection.supervised_tokens,
    samples.num_turns, samples.num_images, samples.num_videos
from selection
join samples using (sample_key)
where selection.selected and selection.split = 'train'
