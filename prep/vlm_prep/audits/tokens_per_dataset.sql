-- title: Tokens by dataset
-- severity: I
-- advice: [mix] weight_unit = "tokens" shares out tokens instead of samples.
select
    dataset, count(*) as num_samples, sum(total_tokens)::bigint as tokens, round(avg(total_tokens), 1) as tokens_per_sample,
    round(sum(supervised_tokens) / sum(total_tokens), 3) as supervised_share
from selection
where selected
group by dataset
order by dataset
