-- title: Converted datasets beside those of the mix that it does not use
-- severity: I
-- advice: They belong to another mix, or a weight is missing.
select dataset, num_parts
from converted_datasets
where dataset not in (select name from datasets)
order by all
