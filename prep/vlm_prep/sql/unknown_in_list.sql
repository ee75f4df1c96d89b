-- How many ids of a list of the user's are of no converted sample, of how many, and one of them.
select
    count(*) filter (candidates.sample_key is null) as num_unknown,
    count(*) as num_ids,
    min(coalesce(listed.dataset, 'null') || '/' || coalesce(listed.sample_id, 'null')) filter (candidates.sample_key is null) as example
from (select distinct dataset, sample_id from listed_rows) as listed
left join candidates using (dataset, sample_id)
