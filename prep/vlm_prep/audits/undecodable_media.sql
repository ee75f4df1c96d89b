-- title: Media that do not decode
-- severity: E
-- advice: They are truncated or damaged; training would stop at them. Leave the samples out with [mix.select] exclude.
select dataset, sample_id, decoded_media.name, problem
from decoded_media
semi join audited using (sample_key)
where not decoded
order by dataset, sample_id, decoded_media.name
