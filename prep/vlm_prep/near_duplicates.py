"""Which samples show nearly the same pictures? By perceptual hashes of 64 bits that differ in a few (semantics B1).

The hashes are cut into five blocks. Two that differ in at most three bits agree in at least two blocks whole (the
pigeonhole of Manku, Jain, Das Sarma, Detecting near-duplicates for web crawling, WWW 2007), so each of the ten pairs of
blocks is one join on some 26 bits: few hashes share those by chance, where one block of 16 bits would be shared by
thousands of a population of millions.
"""

from dataclasses import dataclass
from itertools import combinations

import duckdb

from vlm_prep.connected import label_components
from vlm_prep.selection_rules import DuplicateRule
from vlm_prep.sql import read_sql

BLOCKS = (13, 13, 13, 13, 12)
MAX_DISTANCE = len(BLOCKS) - 2
LEAST_BITS, MOST_BITS = 8, 56
"""Hashes with fewer or more bits are those of blank pictures."""
MAX_BUCKET = 10_000
"""More hashes than these with the same bits say nothing of each other, and comparing them all would never end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NearHashes:
    """What was compared."""

    num_hashes: int
    num_pairs: int
    """Pairs within the distance."""
    num_crowded: int
    """Buckets left out."""
    num_in_crowded: int
    """Hashes in them."""


def masks() -> list[int]:
    """The bits of each two blocks."""
    blocks, at = [], 0
    for bits in BLOCKS:
        blocks.append(((1 << bits) - 1) << at)
        at += bits
    return [one | other for one, other in combinations(blocks, 2)]


def label_near_hashes(index: duckdb.DuckDBPyConnection, *, distance: int, max_bucket: int = MAX_BUCKET) -> NearHashes:
    """Make ``labels`` (node, label) of the table ``hashes`` (hash, all different).

    Those that hang together have one label. A hash without another one near is not in it.
    """
    assert 0 <= distance <= MAX_DISTANCE
    index.execute("create table near_pairs (one ubigint, other ubigint)")
    num_crowded = num_in_crowded = 0
    for mask in masks() if distance else ():
        index.execute(read_sql("crowded_buckets.sql"), {"mask": mask, "max_bucket": max_bucket})
        crowded, inside = _numbers(index, "select count(*), coalesce(sum(num_hashes), 0)::bigint from crowded")
        num_crowded, num_in_crowded = num_crowded + crowded, num_in_crowded + inside
        index.execute(read_sql("near_pairs.sql"), {"mask": mask, "distance": distance})
    (num_hashes,) = _numbers(index, "select count(*) from hashes")
    (num_pairs,) = _numbers(index, "select count(*) from (select distinct one, other from near_pairs)")
    index.execute(
        "create table edges as select one as node, one as hub from near_pairs union select other, one from near_pairs"
    )
    label_components(index)
    index.execute("drop table near_pairs; drop table if exists crowded")
    return NearHashes(
        num_hashes=num_hashes, num_pairs=num_pairs, num_crowded=num_crowded, num_in_crowded=num_in_crowded
    )


def leave_out_near_duplicates(
    index: duckdb.DuckDBPyConnection, rule: DuplicateRule, *, decoded: list[str]
) -> list[str]:
    """All but one of the samples whose pictures are nearly the same leave; what there is to say of it.

    ``rule.by`` says when: ``both`` takes the same text, ``media`` none; else nobody leaves, and it is only said.
    """
    assert rule.near is not None
    bits = {"least_bits": LEAST_BITS, "most_bits": MOST_BITS}
    index.execute(read_sql("near_pictures.sql"), {"decoded": decoded, **bits})
    index.execute("create table hashes as select distinct near as hash from near_pictures where near is not null")
    compared = label_near_hashes(index, distance=rule.near)
    index.execute(read_sql("near_groups.sql"))
    if rule.by in ("media", "both"):
        index.execute(read_sql("left_out_as_near_duplicates.sql"), rule.parameters())
    told = _describe(index, rule, compared)
    index.execute("drop table near_pictures; drop table hashes; drop table labels; drop table near_groups")
    return told


def _describe(index: duckdb.DuckDBPyConnection, rule: DuplicateRule, compared: NearHashes) -> list[str]:
    told = [
        f"near duplicates: {compared.num_hashes:,} different hashes of pictures, {compared.num_pairs:,} pairs of them "
        f"within {rule.near} bits"
    ]
    (num_blank,) = _numbers(index, "select count(*) from near_pictures where is_blank")
    if num_blank:
        told.append(f"near duplicates: {num_blank:,} blank pictures are compared by their bytes only")
    if compared.num_crowded:
        told.append(
            f"near duplicates: {compared.num_crowded:,} buckets of over {MAX_BUCKET:,} hashes "
            f"({compared.num_in_crowded:,} in all) are not compared within"
        )
    num_groups, num_samples = _numbers(index, read_sql("near_counts.sql"), {"across": rule.across})
    if num_groups:
        told.append(
            f"near duplicates: {num_samples:,} samples that stay show nearly the same pictures as others, in "
            f"{num_groups:,} groups; [mix.select.duplicates] by = 'media' would keep one of each"
        )
    return told


def _numbers(
    index: duckdb.DuckDBPyConnection, question: str, parameters: dict[str, object] | None = None
) -> tuple[int, ...]:
    row = index.execute(question, parameters or {}).fetchone()
    assert row is not None
    return tuple(row)
