-- The samples whose text or media are others in b than in a. $samples_a, $samples_b: files of the parts that only one of them has.
select sample_key, a.text_hash is distinct from b.text_hash as has_other_text, a.media_hash is distinct from b.media_hash as has_other_media
from read_parquet($samples_a) as a
join read_parquet($samples_b) as b using (sample_key)
where a.status = 'kept' and b.status = 'kept' and (has_other_text or has_other_media)
