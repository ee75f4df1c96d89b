-- title: One letter is the right option much more often than others
-- severity: I
-- threshold: least_answers = 40, in the dataset
-- threshold: most_share = 0.5, of the answers that are letters
-- advice: Shuffle the options of the questions.
with letters as (
    select dataset, option_letter, count(*) as num_answers
    from turn_facts
    where role = 'assistant' and option_letter is not null and selected
    group by all
)
select dataset, arg_max(option_letter, (num_answers, option_letter)) as letter, round(max(num_answers) / sum(num_answers), 3) as share, sum(num_answers)::bigint as num_answers
from letters
group by dataset
having sum(num_answers) >= $least_answers and share > $most_share
order by share desc, dataset
