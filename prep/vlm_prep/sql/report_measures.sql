-- A row per measured thing of the samples that a mix trains on. From used and media.
create table measures as
select dataset, 'tokens' as measure, total_tokens::double as value from used
union all
select dataset, 'supervised_tokens', supervised_tokens from used
union all
select dataset, 'turns', num_turns from used
union all
select used.dataset, 'image_side', sqrt(width::double * height) from media join used using (sample_key) where kind = 'image'
union all
select used.dataset, 'duration', duration from media join used using (sample_key) where kind = 'video' and duration is not null
