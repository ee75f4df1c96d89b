-- title: Shares of the planned epochs that are not those of the mix
-- severity: E
-- threshold: most_samples = 50, draws; merging keeps windows within a few, packing lets some wait
-- advice: The epoch table was written for another mix; start the run in a new output_dir.
with drawn as (
    select dataset, count(*) as num_rows
    from epoch_rows
    where status = 'planned'
    group by dataset
),
counted as (
    select name as dataset, num_draws / sum(num_draws) over () as asked, coalesce(num_rows, 0) as num_rows, sum(coalesce(num_rows, 0)) over () as all_rows
    from datasets
    left join drawn on drawn.dataset = name
)
select dataset, round(asked, 6) as asked, round(num_rows / all_rows, 6) as realised, num_rows
from counted
where abs(num_rows - asked * all_rows) > $most_samples
order by dataset
