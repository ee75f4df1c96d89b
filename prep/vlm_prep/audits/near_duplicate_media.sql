-- title: Pictures that look the same and are other files
-- severity: W
-- advice: Of the same perceptual hash; exclude all but the best of each group.
with alike as (
    select phash
    from decoded_media
    where phash is not null and bit_count(phash::bit) between 8 and 56
    group by phash
    having min(hash(xxh3_128)) <> max(hash(xxh3_128))
)
select min(decoded_media.dataset) as dataset, count(distinct xxh3_128) as num_files, count(distinct sample_key) as num_samples, min(decoded_media.sample_id) as example, max(decoded_media.sample_id) as another
from decoded_media
semi join alike using (phash)
join audited using (sample_key)
where audited.selected
group by phash
having num_files > 1
order by num_samples desc, example, another
