-- A row per turn of every conversation: alternative 0 is the sample's messages, 1 and on are its alternatives. From texts.
create view turns as
with conversations as (
    select dataset, sample_id, sample_key, 0 as alternative, messages as conversation from texts
    union all
    select
        dataset, sample_id, sample_key,
        unnest(range(1, json_array_length(alternatives)::bigint + 1))::integer as alternative,
        unnest(from_json(alternatives, '["json"]')) as conversation
    from texts
    where alternatives <> '[]'
),
messages as (
    select
        dataset, sample_id, sample_key, alternative,
        unnest(range(json_array_length(conversation)::bigint))::integer as turn,
        unnest(from_json(conversation, '[{"role": "VARCHAR", "content": [{"type": "VARCHAR", "text": "VARCHAR"}]}]')) as message
    from conversations
)
select
    dataset, sample_id, sample_key, alternative, turn,
    message.role as role,
    array_to_string([item.text for item in message.content if item.text is not null], '') as text,
    len([item for item in message.content if item.type = 'image'])::integer as num_images,
    len([item for item in message.content if item.type = 'video'])::integer as num_videos
from messages
