-- Why samples of the sources are not used, counted: rejected at conversion, or not selected. From samples and selection.
select dataset, 'rejected' as stage, reason, count(*) as num_samples
from samples
where status = 'rejected'
group by dataset, reason
union all
select dataset, 'left_out', reason, count(*)
from selection
where not selected
group by dataset, reason
order by dataset, stage, num_samples desc, reason
