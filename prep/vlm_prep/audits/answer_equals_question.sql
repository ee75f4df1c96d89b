-- title: Answers that repeat a question word for word
-- severity: W
-- threshold: least_chars = 8, shorter ones repeat by chance
-- advice: Exclude them, or mend the export that put the question twice.
select dataset, sample_id, alternative, turn, num_chars
from turn_facts
semi join (select sample_key, alternative, text_hash from turn_facts where role = 'user' and num_chars >= $least_chars and selected) as questions
    using (sample_key, alternative, text_hash)
where role = 'assistant'
order by all
