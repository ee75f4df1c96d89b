-- title: Datasets that an epoch repeats often
-- severity: W
-- threshold: most_repeats = 4, times in an epoch
-- advice: A model learns them by heart; lower the weight or add samples.
select name as dataset, num_selected, num_draws, round(num_draws / num_selected, 2) as repeats
from datasets
where num_draws > $most_repeats * num_selected
order by all
