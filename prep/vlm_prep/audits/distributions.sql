-- title: Tokens, pixels, aspect and seconds by dataset
-- severity: I
-- advice: The outlier queries list what stands apart.
with measured as (
    select dataset, 'tokens' as what, total_tokens::double as value from audited where selected
    union all
    select dataset, 'pixels', width::double * height from audited_media where selected
    union all
    select dataset, 'aspect', width / height from audited_media where selected
    union all
    select dataset, 'seconds', duration from audited_media where selected
)
select dataset, what, count(*) as num, round(min(value), 2) as least, list_transform(quantile_cont(value, [0.05, 0.5, 0.95]), lambda one: round(one, 2)) as at_5_50_95_percent, round(max(value), 2) as most
from measured
where value is not null
group by dataset, what
order by dataset, what
