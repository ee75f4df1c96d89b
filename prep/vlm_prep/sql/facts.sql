-- A row per kept sample with most of what is known of it: the sample, its longest alternative, its media together.
create view facts as
with longest as (
    select
        sample_key, text_tokens, image_tokens, video_tokens, total_tokens, supervised_tokens, vision_patches, problem,
        row_number() over (partition by sample_key order by total_tokens desc, alternative) as nth_longest
    from lengths
),
media_of as (
    select
        sample_key,
        count(*) as num_media,
        min(least(width, height)) as min_side,
        max(greatest(width, height)) as max_side,
        max(width::bigint * height) as max_pixels,
        sum(duration) as total_duration,
        sum(bytes)::bigint as media_bytes
    from media
    group by sample_key
)
select samples.* exclude (status, reason, detail), longest.* exclude (sample_key, nth_longest), media_of.* exclude (sample_key)
from samples
left join longest on longest.sample_key = samples.sample_key and longest.nth_longest = 1
left join media_of on media_of.sample_key = samples.sample_key
where samples.status = 'kept'
