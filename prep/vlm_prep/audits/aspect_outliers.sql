-- title: Media of another shape than others of their dataset
-- severity: I
-- threshold: spread = 3, times the distance of the quartiles, of logarithms, from the median
-- threshold: least_rows = 20, of a dataset
-- advice: See whether they belong there.
select dataset, sample_id, name, round(value, 2) as aspect, round(usual, 2) as usual
from media_spreads
where measure = 'aspect' and num_rows >= $least_rows and distance > $spread * reach
order by distance desc, dataset, sample_id, name
