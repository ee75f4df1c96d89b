-- title: Tars with another number of samples than wdinfo.json says
-- severity: E
-- advice: The source is not what it was: write wdinfo.json or the tars anew.
with found as (
    select dataset, split_part(source_uri, '/', 1) as key, substr(source_uri, strpos(source_uri, '/') + 1) as entry, count(*) as num_found
    from samples
    where reason is distinct from 'duplicate_member'
    group by all
),
by_entry as (select dataset, entry, sum(num_found)::bigint as num_found from found group by all)
select stated_counts.dataset, stated_counts.entry, num_stated, coalesce(num_found, 0) as num_found
from stated_counts
left join by_entry using (dataset, entry)
where stated_counts.entry is not null and num_stated <> coalesce(num_found, 0)
union all
select dataset, null, num_stated, num_found
from stated_counts
join (select dataset, sum(num_found)::bigint as num_found from by_entry group by dataset) as totals using (dataset)
where stated_counts.entry is null and num_stated <> totals.num_found
order by all
