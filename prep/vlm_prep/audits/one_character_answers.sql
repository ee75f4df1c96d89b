-- title: Answers of one character that is neither a letter of an option nor a digit
-- severity: W
-- advice: They are often what is left of a cut answer.
select dataset, sample_id, alternative, turn, short_text as answer
from turn_facts
where role = 'assistant' and length(short_text) = 1 and not regexp_matches(short_text, '[A-Za-z0-9]') and selected
order by all
