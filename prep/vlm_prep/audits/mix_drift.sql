-- title: Shares of the epoch that are not those asked for
-- severity: E
-- threshold: most_token_share = 0.02, by tokens a share is as near as samples allow
-- advice: Build the mix again with this version; draws are within one of exact.
with realised as (
    select name as dataset, share, num_draws, sum(num_draws) over () as all_draws, tokens_per_sample * num_draws as tokens, sum(tokens_per_sample * num_draws) over () as all_tokens
    from datasets
    left join (select dataset, avg(total_tokens) as tokens_per_sample from selection where selected and split = 'train' group by dataset) as lengths on lengths.dataset = name
)
select dataset, round(share, 6) as asked, round(case when weight_unit = 'tokens' then tokens / all_tokens else num_draws / all_draws end, 6) as realised, num_draws
from realised
cross join mix
where (weight_unit = 'samples' and abs(num_draws - share * all_draws) > 1)
    or (weight_unit = 'tokens' and abs(tokens / all_tokens - share) > $most_token_share)
order by dataset
