-- title: Samples rejected for media that are not there, empty or unreadable
-- severity: E
-- advice: Mend the source and build again; only what was mended is converted anew.
select dataset, sample_id, reason, detail
from samples
where reason in ('missing_media', 'media_empty', 'media_unreadable') and not (reason = 'missing_media' and detail like '<%> number %')
order by all
