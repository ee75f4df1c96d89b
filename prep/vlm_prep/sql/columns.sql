-- Every column of the views. $views: their names in order.
select table_name, column_name, data_type
from information_schema.columns
where table_name in (select unnest($views::varchar[]))
order by list_position($views::varchar[], table_name), ordinal_position
