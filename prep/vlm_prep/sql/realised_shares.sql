-- What each dataset was asked to have of the draws, and what it has: of the planned epochs, and of what was trained on.
create or replace view realised_shares as
with drawn as (
    select 'planned' as stage, dataset from epoch_rows where status = 'planned'
    union all
    select 'trained', dataset from sample_losses
),
counted as (
    select stage, dataset, count(*) as num_rows
    from drawn
    group by stage, dataset
),
asked as (
    select stage, name as dataset, num_draws / sum(num_draws) over (partition by stage) as asked
    from datasets
    cross join (values ('planned'), ('trained')) as stages (stage)
)
select
    stage, dataset, asked, coalesce(num_rows, 0) as num_rows, sum(coalesce(num_rows, 0)) over (partition by stage) as all_rows,
    num_rows / all_rows as realised
from asked
left join counted using (stage, dataset);

create or replace view planned_shares as select * from realised_shares where stage = 'planned';
create or replace view trained_shares as select * from realised_shares where stage = 'trained'
