-- title: One dataset many times in a row in an epoch
-- severity: W
-- threshold: most_times = 2, the longest run that pure chance would give
-- advice: Steps see one dataset only; look at the order of the epoch table.
with ordered as (
    select dataset, row_number() over (order by epoch, step, row, position) as place, row_number() over (partition by dataset order by epoch, step, row, position) as of_dataset
    from epoch_rows
    where status = 'planned'
),
runs as (select dataset, count(*) as in_a_row from ordered group by dataset, place - of_dataset),
shares as (select dataset, count(*) / sum(count(*)) over () as share, sum(count(*)) over () as num_rows from ordered group by dataset)
select dataset, max(in_a_row) as in_a_row, round(any_value(share), 4) as share, ceil(ln(any_value(num_rows)) / -ln(any_value(share)))::bigint as by_chance
from runs
join shares using (dataset)
where share < 1
group by dataset
having max(in_a_row) > $most_times * (by_chance + 1)
order by dataset
