-- The media of remaining samples by what makes two of them alike: near, of pictures whose hash says something, else exact.
-- $decoded: files; $least_bits, $most_bits: fewer or more bits say nothing of a picture.
create table near_pictures as
select
    facts.sample_key,
    facts.position,
    case when bit_count(facts.phash) between $least_bits and $most_bits then facts.phash end as near,
    case when bit_count(facts.phash) between $least_bits and $most_bits then null else facts.xxh3_128 end as exact,
    facts.phash is not null and near is null as is_blank
from read_parquet($decoded) as facts
semi join remaining using (sample_key)
