-- title: Samples without a token to learn from
-- severity: W
-- advice: An empty answer, or one that was cut off; they are left out of the mix.
select dataset, sample_id, total_tokens, selected
from selection
where reason = 'no_supervised_tokens' or (selected and supervised_tokens = 0)
order by all
