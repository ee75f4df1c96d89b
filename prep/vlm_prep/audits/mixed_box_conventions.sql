-- title: Boxes or points of several conventions in one dataset
-- severity: E
-- advice: Bring them to one: fractions, thousandths or pixels; a model cannot tell which is meant.
select
    dataset,
    count(*) filter (list_max(numbers) <= 1) as num_fractions,
    count(*) filter (list_max(numbers) > 1 and list_max(numbers) <= 1000) as num_thousandths,
    count(*) filter (list_max(numbers) > 1000) as num_pixels,
    min(sample_id) filter (list_max(numbers) <= 1) as example_of_fractions,
    min(sample_id) filter (list_max(numbers) > 1000) as example_of_pixels
from places
where selected and list_min(numbers) >= 0 and list_max(numbers) > 0
group by dataset
having (num_fractions > 0 and num_thousandths + num_pixels > 0)
order by dataset
