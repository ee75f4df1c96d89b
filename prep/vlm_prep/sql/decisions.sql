-- What selection decides: who leaves and why, who is held out for validation. From candidates.
create table left_out (sample_key ubigint, reason varchar);

create view remaining as select * from candidates anti join left_out using (sample_key);

create table eval_samples (sample_key ubigint);
