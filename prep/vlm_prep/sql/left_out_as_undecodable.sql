-- Samples of which a conversation shows a medium that training could not decode. $media, $decoded: files.
insert into left_out
select sample_key, 'undecodable'
from remaining
semi join (
    select media.sample_key
    from read_parquet($decoded) as facts
    join read_parquet($media) as media using (sample_key, position)
    where not facts.decoded and media.referenced
) as broken using (sample_key)
