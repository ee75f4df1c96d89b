-- title: Answers that repeat a question word for word
-- severity: W
-- threshold: least_chars = 8, shorter ones repeat by chance
-- advice: Exclude them, or mend the export that put the question twice.
select dataset, sample_id, alternative, repeated_question[:120] as found
from conversation_facts
where length(repeated_question) >= $least_chars and selected
order by all
