import random
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.train.random_mixes import RandomMix, dataset, random_mix

from vlm_train.draws import OrderSettings
from vlm_train.epoch import plan_epoch
from vlm_train.planned_rows import PlannedRow, planned_rows
from vlm_train.rank_rows import (
    Nodes,
    RowSharing,
    equal_nodes,
    lines_of_ranks,
    ranks_of_rows,
    row_sharing,
    rows_of_rank,
    rows_of_ranks,
)


@dataclass(frozen=True)
class Row:
    step: int
    row: int
    vision_patches: int
    dataset: str = "d"
    part: str = "p"
    shard: int = 0


def packed(step: int, row: int, draw: random.Random) -> tuple[Row, ...]:
    return tuple(Row(step, row, draw.randint(0, 900)) for _ in range(draw.randint(1, 3)))


def test_every_row_goes_to_one_rank_and_ranks_get_as_many() -> None:
    for seed in range(200):
        draw = random.Random(seed)
        num_ranks, each, steps = draw.choice([1, 2, 3, 8]), draw.randint(1, 6), draw.randint(1, 4)
        rows = [packed(step, row, draw) for step in range(steps) for row in range(num_ranks * each)]
        sharing = RowSharing(rows_per_step=num_ranks * each, nodes=equal_nodes(num_ranks=num_ranks, num_nodes=1))
        shares = [list(rows_of_rank(rows, sharing=sharing, rank=rank)) for rank in range(num_ranks)]
        assert sorted((row for share in shares for row in share), key=lambda one: (one[0].step, one[0].row)) == rows
        for share in shares:
            assert [row[0].step for row in share] == [step for step in range(steps) for _ in range(each)]


def test_no_rank_has_more_than_one_row_of_patches_above_another() -> None:
    for seed in range(200):
        draw = random.Random(seed)
        patches = [draw.randint(0, 1000) for _ in range(32)]
        loads = [sum(patches[row] for row in rows) for rows in rows_of_ranks(patches, num_ranks=4)]
        assert max(loads) - min(loads) <= max(patches)


@st.composite
def nodes(draw: st.DrawFn) -> Nodes:
    """Machines of as many ranks each, or of any numbers, whose ranks stand together or not."""
    sizes = draw(
        st.one_of(st.integers(1, 4).map(lambda one: [one] * 3), st.lists(st.integers(1, 3), min_size=1, max_size=4))
    )
    ranks = draw(st.permutations(range(sum(sizes))))
    ends = np.cumsum(sizes).tolist()
    return tuple(tuple(sorted(ranks[end - size : end])) for size, end in zip(sizes, ends, strict=True))


def planned(mix: RandomMix, nodes: Nodes, each: int) -> tuple[pa.Table, OrderSettings]:
    rows = sum(map(len, nodes)) * each
    order = OrderSettings(seed=mix.order.seed, rows_per_step=rows, pack_tokens=mix.order.pack_tokens)
    return plan_epoch(mix.datasets, epoch=0, order=order), order


@given(seed=st.integers(0, 10_000), nodes=nodes(), each=st.integers(1, 5), is_local=st.booleans())
@settings(max_examples=60, deadline=None)
def test_ranks_share_each_step_as_the_plan_and_what_is_fetched_ahead_say(
    seed: int, nodes: Nodes, each: int, is_local: bool
) -> None:
    mix = random_mix(seed)
    assume(any(one.num_draws for one in mix.datasets))
    table, order = planned(mix, nodes, each)
    fetched = [f"d{number}" for number in range(1 if seed % 2 else 6)]  # some datasets, or all
    sharing = row_sharing(order, nodes=nodes, fetched=[] if is_local else fetched)
    rows = list(planned_rows(table))
    of_rows = ranks_of_rows(table, sharing=sharing)
    found: list[tuple[PlannedRow, ...]] = []
    for rank in range(sharing.num_ranks):
        mine = list(rows_of_rank(rows, sharing=sharing, rank=rank))
        assert [row[0].step for row in mine] == [step for step in range(len(of_rows)) for _ in range(each)]
        assert all(of_rows[row[0].step, row[0].row] == rank for row in mine)
        found += mine
    assert sorted(found, key=lambda row: (row[0].step, row[0].row)) == rows
    for ranks in nodes:
        lines = table.filter(pa.array(lines_of_ranks(table, sharing=sharing, ranks=ranks)))
        of_node = [row for row in rows if of_rows[row[0].step, row[0].row] in ranks]
        assert list(planned_rows(lines)) == of_node
    if is_local or order.pack_tokens is not None or len(set(map(len, nodes))) > 1:
        assert sharing.near_shards == frozenset()  # patches alone
        for step, patches in enumerate(_patches(rows, order.rows_per_step)):
            by_patches = rows_of_ranks(patches, num_ranks=sharing.num_ranks)
            assert [np.flatnonzero(of_rows[step] == rank).tolist() for rank in range(sharing.num_ranks)] == by_patches


def _patches(rows: list[tuple[PlannedRow, ...]], rows_per_step: int) -> list[list[int]]:
    sums = [sum(sample.vision_patches for sample in row) for row in rows]
    return [sums[begin : begin + rows_per_step] for begin in range(0, len(sums), rows_per_step)]


def test_nodes_read_fewer_shards_where_rows_of_one_sample_go_by_shard() -> None:
    mix = [dataset(f"d{number}", 600, draws=600, seed=number, samples_per_shard=40) for number in range(4)]
    for num_nodes, most in ((2, 0.8), (4, 0.6)):
        nodes = equal_nodes(num_ranks=2 * num_nodes, num_nodes=num_nodes)
        order = OrderSettings(seed=1, rows_per_step=8 * num_nodes)
        table = plan_epoch(mix, epoch=0, order=order)
        by_patches, by_shard = (
            row_sharing(order, nodes=nodes, fetched=fetched) for fetched in ((), ("d0", "d1", "d2", "d3"))
        )
        assert _reads(table, by_shard) < most * _reads(table, by_patches)
        assert sorted(_of_steps(table, by_patches)) == sorted(_of_steps(table, by_shard))


def _reads(table: pa.Table, sharing: RowSharing) -> int:
    """How many shards nodes read, one that two read counted twice."""
    read = set()
    for node, ranks in enumerate(sharing.nodes):
        lines = table.filter(pa.array(lines_of_ranks(table, sharing=sharing, ranks=ranks)))
        places = lines.select(["dataset", "part", "shard", "status"]).to_pylist()
        read |= {(node, *one.values()) for one in places if one["status"] == "planned"}
    return len(read)


def _of_steps(table: pa.Table, sharing: RowSharing) -> list[tuple[int, int]]:
    """(step, row) of the rows of every rank."""
    rows = list(planned_rows(table))
    return [
        (row[0].step, row[0].row)
        for rank in range(sharing.num_ranks)
        for row in rows_of_rank(rows, sharing=sharing, rank=rank)
    ]


def test_shards_prefer_nodes_by_a_stable_hash() -> None:
    """A change of these would make every node of a resumed run fetch other shards than it has."""
    rows = [(Row(0, number, 1, shard=number),) for number in range(8)]
    sharing = RowSharing(rows_per_step=8, nodes=((0,), (1,)), near_shards=frozenset("d"))
    assert [[row[0].shard for row in rows_of_rank(rows, sharing=sharing, rank=rank)] for rank in (0, 1)] == [
        [1, 3, 5, 7],
        [0, 2, 4, 6],
    ]
