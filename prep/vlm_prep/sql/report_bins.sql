-- Each measure counted by bins: turns one by one up to $most_turns, the others by $fine bins for each doubling. From measures.
select
    measure, dataset,
    case when measure = 'turns' then least(value, $most_turns) else floor($fine * log2(greatest(value, $least))) end::integer as bin,
    count(*) as number
from measures
group by all
order by all
