-- Samples that the user's lists leave out. Relations excluded, included: dataset, sample_id; $has_include: is there a list to include.
insert into left_out
select sample_key, case when excluded.sample_id is not null then 'excluded' else 'not_included' end
from remaining
left join (select distinct dataset, sample_id from excluded) as excluded using (dataset, sample_id)
left join (select distinct dataset, sample_id from included) as included using (dataset, sample_id)
where excluded.sample_id is not null or ($has_include and included.sample_id is null)
