-- A row per turn of every conversation.
create view turns as
with messages as (
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
