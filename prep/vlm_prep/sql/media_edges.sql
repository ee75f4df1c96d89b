-- Which remaining samples hold which media; a sample without media holds its text. $media: files.
create table edges as
select distinct remaining.sample_key as node, media.xxh3_128 as hub
from remaining
join read_parquet($media) as media using (sample_key)
union all
select sample_key, text_hash from remaining where num_images + num_videos = 0
