-- The samples that an audit of a mix looks at: those in it, and those that were left out because they cannot be used; what the user has
-- left out is dealt with.
create view audited as
select dataset, sample_id, sample_key, selected, split, total_tokens, supervised_tokens, vision_patches
from selection
where selected or reason = 'undecodable' or reason in (select distinct split_part(problem, ':', 1) from lengths where problem is not null)
