-- title: Pictures too small for the text that is to be read in them
-- severity: W
-- threshold: pixels_per_char = 32, a character needs about 4 x 8 pixels
-- advice: Nobody could read the answer there; look for the larger original.
with asked as (select distinct sample_key from turn_facts where role = 'user' and asks_to_read and selected),
answers as (
    select sample_key, max(num_chars) as num_chars
    from turn_facts
    semi join asked using (sample_key)
    where role = 'assistant'
    group by sample_key
)
select dataset, sample_id, max(width::bigint * height) as pixels, any_value(num_chars) as answer_chars
from audited_media
join answers using (sample_key)
where kind = 'image'
group by dataset, sample_id
having sum(width::bigint * height) < any_value(num_chars) * $pixels_per_char
order by dataset, sample_id
