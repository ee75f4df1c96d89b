-- title: Placeholders that do not fit the media, by number or kind
-- severity: E
-- advice: Mend the source: as many image and video items (or <image> and <video> tags) as media of that kind.
select dataset, sample_id, reason as problem, detail
from samples
where reason = 'media_kind_mismatch' or (reason = 'missing_media' and detail like '<%> number %')
union all
select dataset, sample_id, problem, null
from lengths
join audited using (sample_key)
where problem like 'placeholder_media_mismatch%'
order by all
