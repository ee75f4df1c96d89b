-- title: Shares of what was trained on that are not those of the mix
-- severity: E
-- threshold: most_samples = 50, samples; merging keeps windows within a few, packing lets some wait
-- advice: vlm-train explain RUN --step N says what a step had; see whether steps or losses are missing.
with drawn as (
    select dataset, count(*) as num_rows
    from sample_losses
    
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
