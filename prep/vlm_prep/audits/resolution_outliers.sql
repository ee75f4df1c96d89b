-- title: Media much larger or smaller than others of their dataset
-- severity: I
-- threshold: spread = 3, times the distance of the quartiles, of logarithms, from the median
-- threshold: least_rows = 20, of a dataset
-- advice: See whether they belong there.
with measured as (
    select dataset, sample_id, name, ln(width::double * height) as size, width::double * height as value
    from audited_media
    where selected and width > 0 and height > 0
),
usual as (
    select dataset, quantile_cont(size, [0.25, 0.5, 0.75]) as quarters
    from measured
    group by dataset
    having count(*) >= $least_rows
)
select dataset, sample_id, name, round(value, 2) as pixels, round(exp(quarters[2]), 2) as usual
from measured
join usual using (dataset)
where abs(size - quarters[2]) > $spread * greatest(quarters[3] - quarters[1], 0.1)
order by abs(size - quarters[2]) desc, dataset, sample_id, name
