-- A row per turn that is looked at, with what one pass over its text finds: the piece that was found, or null. Each costly pattern is asked
-- only where a cheap one holds (CASE does not evaluate the branch that it does not take; AND in a SELECT evaluates all): a character at best, which is found without a look at
-- the others; where several words would do, one pattern of them all. What is of a whole conversation stands at its turn 0:
-- roles in order by their first letters (x for others).
-- Stored JSON is ASCII: without an escape there is neither a control character nor a letter beyond ASCII in the conversation.
create table turn_facts as
with parsed as (
    select
        audited.dataset, audited.sample_id, sample_key, audited.selected, audited.split, alternative, conversation,
        contains(conversation, '\u') as has_escapes,
        from_json(conversation, '[{"role": "VARCHAR", "content": [{"type": "VARCHAR", "text": "VARCHAR"}]}]') as messages
    from conversations
    join audited using (sample_key)
),
messages as (
    select
        * exclude (messages),
        array_to_string([
            case message.role when 'user' then 'u' when 'assistant' then 'a' when 'system' then 's' else 'x' end for message in messages
        ], '') as roles,
        unnest(range(len(messages)))::integer as turn,
        unnest(messages) as message
    from parsed
),
turns as (
    select
        * exclude (message, roles),
        case when turn = 0 then roles end as roles,
        message.role as role,
        case
            when len(message.content) = 1 then (message.content[1].type = 'image')::integer
            else len([item for item in message.content if item.type = 'image'])::integer
        end as num_images,
        case
            when len(message.content) = 1 then (message.content[1].type = 'video')::integer
            else len([item for item in message.content if item.type = 'video'])::integer
        end as num_videos,
        case
            when len(message.content) = 1 then coalesce(message.content[1].text, '')
            else array_to_string([item.text for item in message.content if item.text is not null], '')
        end as text
    from messages
),
gated as (
    select
        *,
        role = 'assistant' as is_answer,
        length(text) as num_chars,
        has_escapes and strlen(text) <> length(text) as is_beyond_ascii,
        contains(text, '<') as has_angle,
        contains(text, '[') as has_bracket,
        contains(text, '(') as has_parenthesis,
        contains(text, '-') as has_dash,
        contains(text, ':') as has_colon,
        -- What a refusal or an empty phrase says somewhere, in one pass.
        case when role = 'assistant' and num_chars >= 10 then regexp_matches(
            text, 'orry|cannot|n(?:''|’)t |able to|AI|anguage model|ope(?:fully| this)|ree to ask|nything else'
        ) else false end as may_be_phrase
    from turns
),
placed as (
    select
        *,
        case when has_bracket or has_parenthesis or has_angle then regexp_extract_all(
            text, '[\[(<{]\s*(?:-?\d+(?:\.\d+)?)(?:\s*,\s*-?\d+(?:\.\d+)?){3}\s*[\])>}]|\(\s*-?\d+(?:\.\d+)?\s*,\s*-?\d+(?:\.\d+)?\s*\)\s*,\s*\(\s*-?\d+(?:\.\d+)?\s*,\s*-?\d+(?:\.\d+)?\s*\)'
        ) end as boxes,
        case when (has_bracket or has_angle) and contains(text, 'oint') then regexp_extract_all(
            text, 'point_2d"?\s*:\s*\[\s*-?\d+(?:\.\d+)?\s*,\s*-?\d+(?:\.\d+)?\s*\]|<\|point_start\|>\s*\(\s*-?\d+(?:\.\d+)?\s*,\s*-?\d+(?:\.\d+)?\s*\)'
        ) end as points
    from gated
)
select
    dataset, sample_id, sample_key, selected, split, alternative, turn, role, num_images, num_videos, num_chars,
    roles,
    hash(text) as text_hash,
    case when text < '!' then not regexp_matches(text, '\S') else false end as is_blank,
    case when num_chars <= 4 then trim(text) end as short_text,
    case when num_chars <= 4 then nullif(regexp_extract(upper(text), '^\s*\(?([A-J])[).]?\s*$', 1), '') end as option_letter,
    case when has_escapes then nullif(regexp_extract(text, '[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]'), '') end as control_character,
    case when is_beyond_ascii then
        nullif(regexp_extract(text, '.{0,20}(?:[ÃÂÐ][\x{80}-\x{BF}]|â€|ï¿½|\x{FFFD}).{0,20}'), '')
    end as mojibake,
    case when has_angle or contains(text, '&') then nullif(regexp_extract(
        text,
        '(?i)</?(?:p|div|span|br|hr|a|b|i|u|ul|ol|li|td|tr|th|table|tbody|h[1-6]|font|strong|em|script|style|iframe|center|html|body)(?:\s[^<>]*)?/?>|<img\s[^<>]*>|&(?:nbsp|amp|lt|gt|quot|#\d+);'
    ), '') end as html,
    case when has_angle or has_bracket then nullif(regexp_extract(
        text, '(?i)<(?:image|video|audio|img|imagehere|im_patch)(?:[_ -]?\d+)?>|\[(?:img|image|video)\]|<\|(?:image|video|vision)[a-z_]*\|>'
    ), '') end as media_tag,
    case when has_angle or (has_bracket and contains(text, 'INST]')) then nullif(regexp_extract(
        regexp_replace(text, '<\|(?:box|object_ref|quad|point|ref|image|video|vision)[a-z_]*\|>', '', 'g'),
        '<\|[A-Za-z0-9_ /]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:bos|eos|pad|unk|start_of_turn|end_of_turn)>'
    ), '') end as special_token,
    case when (has_colon and contains(text, '://')) or contains(text, 'www.') then
        nullif(regexp_extract(text, '(?:https?://|ftp://|www\.)[^\s"<>]{3,80}'), '')
    end as url,
    case when contains(text, '@') then
        nullif(regexp_extract(text, '[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}'), '')
    end as email,
    case when has_dash or has_parenthesis or contains(text, '+') then nullif(regexp_extract(
        text, '(?:^|[^\d.,-])(\+\d{1,3}[ .-]?(?:\(?\d{2,4}\)?[ .-]?){2,4}\d{2,4}|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}-\d{3}-\d{4})(?:$|[^\d-])', 1
    ), '') end as phone,
    case
        when num_chars >= 19 and (
            (has_dash and (contains(text, 'sk-') or contains(text, 'PRIVATE KEY'))) or (contains(text, '_') and contains(text, 'ghp_'))
            or contains(text, 'AKIA') or contains(text, 'AIza')
        ) then
        nullif(regexp_extract(text, '\b(sk-|AKIA|ghp_|AIza)[A-Za-z0-9_-]{16,}|-----BEGIN [A-Z ]*PRIVATE KEY', 0)[:8], '')
    end as secret,
    case when may_be_phrase then
        nullif(regexp_extract(
            text,
            '(?i)(?:i(?: am|’m|''m) (?:very |really )?sorry,? (?:but )?(?:i|as)|i(?: can(?:no|’|'')t|(?: am|’m|''m) (?:unable|not able) to) (?:assist|help|provide|comply|answer|see|view|fulfil|identify|process).{0,60}|sorry, (?:but )?i can(?:no|’|'')t.{0,60})'
        ), '')
    end as refusal,
    case when may_be_phrase then
        nullif(regexp_extract(
            text,
            '(?i)as an? (?:ai|large language|language)[ -](?:language )?(?:model|assistant).{0,40}|i hope this helps|hopefully this helps|(?:please )?(?:feel|be) free to ask.{0,30}|is there anything else i can'
        ), '')
    end as boilerplate,
    case when is_answer and num_chars >= 200 and strlen(replace(text, right(text, 24), '')) <= strlen(text) - 4 * 24 then right(text, 48) end as loop,
    case when is_answer and has_colon then
        nullif(regexp_extract(text, '(?:^|\n)\s*(?:#+ ?)?(?:User|USER|Human|HUMAN|Question|Instruction)s?:.{0,40}'), '')
    end as foreign_turn,
    case when is_beyond_ascii then [script for script in [
        case when regexp_matches(text, '\p{Han}') then 'Han' end,
        case when regexp_matches(text, '[\p{Hiragana}\p{Katakana}]') then 'Kana' end,
        case when regexp_matches(text, '\p{Hangul}') then 'Hangul' end,
        case when regexp_matches(text, '\p{Cyrillic}') then 'Cyrillic' end,
        case when regexp_matches(text, '\p{Greek}') then 'Greek' end,
        case when regexp_matches(text, '\p{Arabic}') then 'Arabic' end,
        case when regexp_matches(text, '\p{Hebrew}') then 'Hebrew' end,
        case when regexp_matches(text, '\p{Devanagari}') then 'Devanagari' end,
        case when regexp_matches(text, '[\p{Bengali}\p{Tamil}\p{Telugu}\p{Gujarati}\p{Kannada}\p{Malayalam}]') then 'other Indic' end,
        case when regexp_matches(text, '[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]') then 'South-East Asian' end,
        case when regexp_matches(text, '\p{Latin}') then 'Latin' end
    ] if script is not null] when regexp_matches(text, '[A-Za-z]') then ['Latin'] else [] end as scripts,
    case when is_answer then false else regexp_matches(text, '(?i)\b(?:read|ocr|transcri\w+|text)\b') end as asks_to_read,
    boxes, points,
    -- Of the whole conversation, which is as it is stored, so that a place without a word of places around it is none.
    case when len(boxes) > 0 or len(points) > 0 then regexp_matches(conversation, 'box|oint|oordinate|ocate|egion')
    else false end as speaks_of_places
from placed
