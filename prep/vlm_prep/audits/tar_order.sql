-- title: Tars that list samples in another order than the tars of other keys
-- severity: W
-- advice: They are matched by name here; loaders that read tars in lockstep pair them wrongly.
select dataset, part, num_out_of_order
from parts
where num_out_of_order > 0
order by all
