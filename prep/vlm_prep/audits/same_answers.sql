-- title: One answer of many samples of a dataset
-- severity: W
-- threshold: least_chars = 20, shorter answers are alike by nature
-- threshold: least_answers = 10, fewer are no pattern
-- threshold: most_share = 0.02, of the answers of the dataset
-- advice: A model learns to say it whatever is shown; exclude most of them, or cap them.
with answers as (
    select dataset, text_hash, any_value(num_chars) as num_chars, count(*) as num_answers, min(sample_id) as example
    from turn_facts
    where role = 'assistant' and num_chars >= $least_chars and selected
    group by dataset, text_hash
    having num_answers >= $least_answers
),
totals as (select dataset, count(*) as num_of_dataset from turn_facts where role = 'assistant' and selected group by dataset)
select dataset, num_answers, round(num_answers / num_of_dataset, 3) as share, num_chars, example
from answers
join totals using (dataset)
where num_answers / num_of_dataset > $most_share
order by num_answers desc, dataset, example
