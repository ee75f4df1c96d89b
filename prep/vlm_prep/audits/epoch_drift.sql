-- title: Shares of the planned epochs that are not those of the mix
-- severity: E
-- threshold: most_samples = 50, draws; merging keeps windows within a few, packing lets some wait
-- advice: The epoch table was written for another mix; start the run in a new output_dir.
select dataset, round(asked, 6) as asked, round(realised, 6) as realised, num_rows
from planned_shares
where abs(num_rows - asked * all_rows) > $most_samples
order by dataset
