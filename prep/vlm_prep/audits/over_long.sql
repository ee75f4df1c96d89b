-- title: Datasets that lose many samples for their length
-- severity: W
-- threshold: most_share = 0.01, of the kept samples of the dataset
-- advice: Raise model_max_length, or shorten them with [mix] length_policy.
select dataset, count(*) filter (reason = 'longer_than_model_max_length') as num_over_long, count(*) as num_samples, max(full_tokens) as most_tokens
from selection
group by dataset
having num_over_long > $most_share * num_samples
order by dataset
