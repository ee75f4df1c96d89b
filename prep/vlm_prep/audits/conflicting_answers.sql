-- title: One question to the same media with several answers
-- severity: W
-- advice: Harmless for captions; for questions with one right answer keep the right one.
with several as (
    select question_hash
    from conversation_facts
    where selected and alternative = 0
    group by question_hash
    having min(answer_hash) <> max(answer_hash)
)
select min(facts.dataset) as dataset, count(distinct answer_hash) as num_answers, count(*) as num_samples, min(facts.sample_id) as example, max(facts.sample_id) as another
from conversation_facts as facts
semi join several using (question_hash)
join samples using (sample_key)
where facts.selected and facts.alternative = 0
group by question_hash, media_hash
having num_answers > 1
order by num_samples desc, example, another
