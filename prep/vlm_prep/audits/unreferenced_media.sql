-- title: Media that no conversation uses
-- severity: W
-- advice: They cost room and are never shown; a reference may be missing in the text.
select dataset, sample_id, name, source_name, kind
from audited_media
where not referenced and selected
order by all
