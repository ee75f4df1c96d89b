-- title: One question to the same media with several answers
-- severity: W
-- advice: Harmless for captions; for questions with one right answer keep the right one.
with asked as (
    select sample_key, hash(turn_facts.text_hash, media_hash) as first_question
    from turn_facts
    join samples using (sample_key)
    where role = 'user' and turn <= 1 and selected and alternative = 0
),
repeated as (select first_question from asked group by first_question having count(*) > 1),
alike as (select sample_key from asked semi join repeated using (first_question)),
conversations as (
    select
        dataset, sample_id, sample_key,
        bit_xor(hash(turn, role, text_hash, num_images, num_videos)) filter (role <> 'assistant') as question_hash,
        bit_xor(hash(turn, text_hash, num_images, num_videos)) filter (role = 'assistant') as answer_hash
    from turn_facts
    semi join alike using (sample_key)
    where alternative = 0
    group by all
)
select min(conversations.dataset) as dataset, count(distinct answer_hash) as num_answers, count(*) as num_samples, min(conversations.sample_id) as example, max(conversations.sample_id) as another
from conversations
join samples using (sample_key)
group by question_hash, media_hash
having num_answers > 1
order by num_samples desc, example, another
