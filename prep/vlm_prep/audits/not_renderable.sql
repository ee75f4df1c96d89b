-- title: Samples that cannot become tokens, by reason
-- severity: W
-- advice: They are left out of the mix; vlm-prep show PATH ID says what is in one.
select dataset, split_part(problem, ':', 1) as problem, count(distinct sample_key) as num_samples, min(sample_id) as example
from lengths
join audited using (sample_key)
where problem is not null
group by all
order by dataset, num_samples desc, problem
