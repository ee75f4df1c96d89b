-- title: Scripts of the text by dataset
-- severity: I
-- advice: By Unicode block; a script that nobody expected may be a wrong language or character set.
with turns as (select dataset, unnest(scripts) as script from turn_facts where selected),
totals as (select dataset, count(*) as num_turns from turn_facts where selected group by dataset)
select dataset, script, count(*) as num_turns, round(count(*) / any_value(totals.num_turns), 4) as share
from turns
join totals using (dataset)
group by dataset, script
order by dataset, num_turns desc, script
