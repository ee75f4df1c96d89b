-- The chosen samples in the order of their importance, with what a page shows of each. From chosen, samples, texts and media.
with media_of as (
    select
        sample_key,
        list(
            struct_pack(name, kind, format, width, height, bytes, duration, referenced) order by position
        )[1:$most_media] as media
    from media
    where sample_key in (select sample_key from chosen)
    group by sample_key
),
texts_of as (select sample_key, messages from texts where sample_key in (select sample_key from chosen))
select
    chosen.* exclude (place, is_wanted),
    samples.num_turns, samples.num_images, samples.num_videos, samples.num_alternatives,
    samples.source_uri, samples.member, samples.byte_offset, samples.part, samples.shard, samples.index_in_shard,
    texts_of.messages,
    coalesce(media_of.media, []) as media
from chosen
join samples on samples.sample_key = chosen.sample_key and samples.sample_id = chosen.sample_id
left join texts_of on texts_of.sample_key = chosen.sample_key
left join media_of on media_of.sample_key = chosen.sample_key
order by chosen.position
