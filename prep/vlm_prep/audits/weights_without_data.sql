-- title: Datasets with a weight of which no sample is drawn
-- severity: E
-- advice: Raise the weight or the epoch, or leave the dataset out with weight 0.
select name as dataset, weight, share, num_selected, num_draws
from datasets
where weight > 0 and (num_selected = 0 or num_draws = 0)
order by all
