-- Of several attempts at a step the latest counts. From every_loss: all lines of all ranks.
create view sample_losses as
select *
from every_loss
qualify attempt = max(attempt) over (partition by epoch, step)
