-- A row per kept sample with all that a condition may name: the sample, its longest alternative, its media together.
-- $samples, $lengths, $media: files.
create table samples as
with lengths as (
    select
        sample_key, text_tokens, image_tokens, video_tokens, total_tokens, supervised_tokens, vision_patches,
        row_number() over (partition by sample_key order by total_tokens desc, alternative) as nth_longest
    from read_parquet($lengths)
),
media as (
    select
        sample_key,
        count(*) as num_media,
        min(least(width, height)) as min_side,
        max(greatest(width, height)) as max_side,
        max(width::bigint * height) as max_pixels,
        sum(duration) as total_duration,
        sum(bytes)::bigint as media_bytes
    from read_parquet($media)
    group by sample_key
)
select samples.*, lengths.* exclude (sample_key, nth_longest), media.* exclude (sample_key)
from read_parquet($samples) as samples
left join lengths on lengths.sample_key = samples.sample_key and lengths.nth_longest = 1
left join media on media.sample_key = samples.sample_key
where samples.status = 'kept'
