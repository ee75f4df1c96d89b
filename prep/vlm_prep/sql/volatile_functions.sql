-- The functions whose value may be another the next time they are asked.
select distinct function_name
from duckdb_functions()
where stability in ('VOLATILE', 'CONSISTENT_WITHIN_QUERY')
