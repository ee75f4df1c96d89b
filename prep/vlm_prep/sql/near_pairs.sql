-- The pairs of hashes that share the bits of $mask and differ in at most $distance bits in all. From hashes (hash).
-- Relation crowded (bucket): equal bits there of too many hashes, which are not compared.
insert into near_pairs
with keyed as (
    select hash, hash & $mask::ubigint as bucket
    from hashes
    where hash & $mask::ubigint not in (select bucket from crowded)
)
select one.hash, other.hash
from keyed as one
join keyed as other on one.bucket = other.bucket and one.hash < other.hash
where bit_count(xor(one.hash, other.hash)) <= $distance
