-- The media of the samples that are looked at; a hash as a number, so that grouping is cheap.
create table audited_media as
select
    media.dataset, media.sample_id, media.sample_key, audited.selected, audited.split, name, source_name, kind, format,
    width, height, duration, fps, frames, mode, orientation, animated, referenced, xxh3_128::uuid as hash
from media
join audited using (sample_key)
