-- title: Members of tars that stand alone or twice
-- severity: E
-- advice: Media without a text, texts without their other half, or a member that stands in the tar before; write the tars anew.
select dataset, sample_id, reason, source_uri, member
from samples
where reason in ('missing_text', 'duplicate_member')
order by all
