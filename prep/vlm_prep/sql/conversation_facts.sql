-- A row per conversation that is looked at: its roles in order by their first letters (x for others), and hashes of questions and answers.
create table conversation_facts as
with parsed as (
    select
        sample_key, alternative,
        from_json(conversation, '[{"role": "VARCHAR", "content": [{"type": "VARCHAR", "text": "VARCHAR"}]}]') as messages
    from conversations
)
select
    audited.dataset, audited.sample_id, sample_key, audited.selected, audited.split, alternative,
    len(messages) as num_turns,
    array_to_string([
        case message.role when 'system' then 's' when 'user' then 'u' when 'assistant' then 'a' else 'x' end for message in messages
    ], '') as roles,
    list_intersect(
        [trim(message.content[-1].text) for message in messages if message.role = 'user'],
        [trim(message.content[-1].text) for message in messages if message.role = 'assistant']
    )[1] as repeated_question,
    hash([message.content for message in messages if message.role <> 'assistant']) as question_hash,
    hash([message.content for message in messages if message.role = 'assistant']) as answer_hash
from parsed
join audited using (sample_key)
