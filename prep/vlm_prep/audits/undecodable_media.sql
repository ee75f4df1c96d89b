-- title: Media that do not decode
-- severity: E
-- advice: They are truncated or damaged, and training would stop at them; exclude the samples or mend the source.
select decoded_media.dataset, decoded_media.sample_id, decoded_media.name, problem
from decoded_media
semi join audited using (sample_key)
where not decoded
order by all
