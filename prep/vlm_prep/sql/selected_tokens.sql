-- Tokens of the samples of each dataset that a mix trains on. $selection: a file.
select dataset, sum(total_tokens)::bigint as tokens
from read_parquet($selection)
where selected and split = 'train'
group by dataset
