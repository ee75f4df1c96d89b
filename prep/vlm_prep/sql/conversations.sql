-- A row per conversation of every kept sample: alternative 0 is the sample's messages, 1 and on are its alternatives. From texts.
create view conversations as
select dataset, sample_id, sample_key, 0 as alternative, messages as conversation from texts
union all
select
    dataset, sample_id, sample_key,
    unnest(range(1, json_array_length(alternatives)::bigint + 1))::integer as alternative,
    unnest(from_json(alternatives, '["json"]')) as conversation
from texts
where alternatives <> '[]'
