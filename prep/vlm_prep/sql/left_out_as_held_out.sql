-- Samples of which a medium stands in a held-out set; of samples without media those whose text does.
-- Relation held_out: hash, of media and of texts. $media: files.
insert into left_out
with seen_media as (
    select distinct media.sample_key
    from read_parquet($media) as media
    semi join held_out on held_out.hash = media.xxh3_128
)
select remaining.sample_key, 'held_out'
from remaining
left join seen_media using (sample_key)
left join (select distinct hash from held_out) as seen_texts on seen_texts.hash = remaining.text_hash
where seen_media.sample_key is not null
    or (remaining.num_images + remaining.num_videos = 0 and seen_texts.hash is not null)
