-- Each medium that is used against the others of its dataset: a row for its shape, its pixels, its seconds. Distances are of logarithms.
create view media_spreads as
with measured as not materialized (  -- so that a query for one measure takes no other
    select 'aspect' as measure, dataset, sample_id, name, width / height as value
    from audited_media
    where selected and width > 0 and height > 0
    union all
    select 'pixels', dataset, sample_id, name, width::double * height
    from audited_media
    where selected and width > 0 and height > 0
    union all
    select 'seconds', dataset, sample_id, name, duration
    from audited_media
    where selected and duration > 0
),
usual as (
    select measure, dataset, count(*) as num_rows, quantile_cont(ln(value), [0.25, 0.5, 0.75]) as quarters
    from measured
    group by measure, dataset
)
select
    measure, dataset, sample_id, name, value, num_rows, exp(quarters[2]) as usual,
    abs(ln(value) - quarters[2]) as distance, greatest(quarters[3] - quarters[1], 0.1) as reach
from measured
join usual using (measure, dataset)
