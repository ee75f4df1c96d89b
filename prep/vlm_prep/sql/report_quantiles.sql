-- How each measure is spread in each dataset. From measures.
select measure, dataset, count(*) as number, quantile_disc(value, [0.0, 0.05, 0.5, 0.95, 1.0]) as quantiles
from measures
group by measure, dataset
order by measure, dataset
