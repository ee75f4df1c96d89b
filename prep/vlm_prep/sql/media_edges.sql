-- Which remaining samples hold which media; a sample without media holds its text. $media: files.
create table media_edges as
select distinct remaining.sample_key, media.xxh3_128 as hash
from remaining
join read_parquet($media) as media using (sample_key)
union all
select sample_key, text_hash from remaining where num_images + num_videos = 0
