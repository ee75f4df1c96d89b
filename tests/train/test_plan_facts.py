"""The numbers of ``vlm-train plan`` equal those counted the plain way, line by line."""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from tests.train.test_epoch import dataset

from vlm_train.draws import OrderSettings
from vlm_train.epoch import plan_parts
from vlm_train.fetch_plan import ShardKey, ShardLines
from vlm_train.plan_facts import Drawn, EpochCounter, EpochFacts, RunShape
from vlm_train.rank_rows import equal_nodes, row_sharing, share_step

EMPTY_ROW = 2


def bytes_of(key: ShardKey) -> int:
    return 1000 + 100 * key.shard + (7 if key.dataset == "a" else 0)


def extents(lines: ShardLines) -> tuple[Sequence[ShardKey], Sequence[int], np.ndarray]:
    return lines.keys, [bytes_of(key) for key in lines.keys], lines.shards


def planned(draw: random.Random, shape: RunShape) -> list[pa.Table]:
    mix = [
        dataset("a", draw.randint(20, 60), draw.randint(20, 150), shards=6, alternatives=3),
        dataset("b", draw.randint(5, 30), draw.randint(1, 60), shards=4, alternatives=2),
    ]
    order = OrderSettings(
        seed=draw.randint(0, 99), rows_per_step=shape.sharing.rows_per_step, pack_tokens=shape.pack_tokens
    )
    return [part.table for part in plan_parts(mix, epoch=draw.randint(0, 3), order=order)]


def counted(parts: Sequence[pa.Table], shape: RunShape) -> EpochFacts:
    counter = EpochCounter(5, shape, extents)
    for table in parts:
        counter.add(table)
    return counter.facts()


def ranks_of_step(rows: dict[int, list[dict]], shape: RunShape) -> list[list[int]]:
    patches = [sum(line["vision_patches"] for line in rows[row]) for row in range(shape.sharing.rows_per_step)]
    firsts = [rows[row][0] for row in range(shape.sharing.rows_per_step)]
    shards = [shape.sharing.wanted_shard(one["dataset"], one["part"], one["shard"]) for one in firsts]
    return share_step(patches, shards, sharing=shape.sharing)


def run_shape(
    *, rows_per_step: int, pack_tokens: int | None, num_ranks: int, num_nodes: int, mini_batch: int, steps_ahead: int
) -> RunShape:
    """Of a run that fetches the shards of one of its two datasets."""
    order = OrderSettings(seed=0, rows_per_step=rows_per_step, pack_tokens=pack_tokens)
    sharing = row_sharing(order, nodes=equal_nodes(num_ranks=num_ranks, num_nodes=num_nodes), fetched=["a"])
    return RunShape(sharing=sharing, mini_batch=mini_batch, pack_tokens=pack_tokens, steps_ahead=steps_ahead)


@pytest.mark.parametrize("pack_tokens", [None, 32])
@pytest.mark.parametrize("seed", range(12))
def test_the_numbers_are_those_of_the_table(
    seed: int, pack_tokens: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlm_train.epoch.SAMPLES_PER_PART", 30)
    monkeypatch.setattr("vlm_train.epoch.DRAWS_PER_WINDOW", 20)
    monkeypatch.setattr("vlm_train.plan_facts.LINES_AT_A_TIME", 25)
    monkeypatch.setattr("vlm_train.plan_facts.STEPS_PER_WINDOW", 3)
    draw = random.Random(seed)
    num_nodes, each = draw.choice([1, 2]), draw.choice([1, 2])
    shape = run_shape(
        rows_per_step=num_nodes * each * 2 * draw.choice([1, 2]), mini_batch=2, pack_tokens=pack_tokens,
        num_ranks=num_nodes * each, num_nodes=num_nodes, steps_ahead=draw.choice([0, 2]),
    )  # fmt: skip
    parts = planned(draw, shape)
    facts = counted(parts, shape)
    lines = pa.concat_tables(parts).to_pylist()
    steps: dict[int, dict[int, list[dict]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        steps[line["step"]][line["row"]].append(line)
    real = [line for line in lines if line["status"] == "planned"]
    tokens = sum(line["tokens"] for line in real)
    assert (facts.epoch, facts.steps, facts.samples, facts.tokens) == (5, len(steps), len(real), tokens)
    assert facts.rows == len({(line["step"], line["row"]) for line in real})
    assert facts.rows + facts.empty_rows == len(steps) * shape.sharing.rows_per_step
    assert facts.samples_per_step == len(real) / len(steps)
    assert facts.row_fill == (None if pack_tokens is None else pytest.approx(tokens / (facts.rows * pack_tokens)))
    for name in "ab":
        of_it = [line for line in real if line["dataset"] == name]
        sums = [sum(line[key] for line in of_it) for key in ("tokens", "supervised_tokens")]
        assert facts.datasets[name] == Drawn(samples=len(of_it), tokens=sums[0], supervised_tokens=sums[1])
    padded = 0
    for rows in steps.values():
        for mine in ranks_of_step(rows, shape):
            for pair in zip(mine[::2], mine[1::2], strict=True):
                padded += 2 * max(max(EMPTY_ROW, sum(line["tokens"] for line in rows[row])) for row in pair)
    assert facts.padding_share == pytest.approx(1 - tokens / padded)
    windows = {(line["step"] // 3, line["dataset"], line["part"], line["shard"]) for line in real}
    assert facts.shards_per_100_steps == pytest.approx(len(windows) / -(-len(steps) // 3))
    in_use, read = zip(*(reads(steps, shape, node, seen_by=each) for node in range(num_nodes)), strict=True)
    assert (facts.working_set_bytes, facts.bytes_per_node) == (max(in_use), max(read))


def reads(steps: dict, shape: RunShape, node: int, *, seen_by: int) -> tuple[int, int]:
    """(most bytes in use at once, bytes of all visits): a visit is a pass over a shard; visits that meet are one."""
    seen: Counter = Counter()
    visits: dict[tuple, list[int]] = defaultdict(list)
    for step, rows in sorted(steps.items()):
        shares = ranks_of_step(rows, shape)[node * seen_by : (node + 1) * seen_by]
        for row in sorted(row for share in shares for row in share):
            for line in rows[row]:
                if line["status"] == "planned":
                    key = ShardKey(line["dataset"], line["part"], line["shard"])
                    sample = (key, line["index_in_shard"])
                    visits[key, seen[sample]].append(step)
                    seen[sample] += 1
    spans: dict[ShardKey, list[list[int]]] = defaultdict(list)
    for (key, _), at in sorted(visits.items(), key=lambda one: (one[0][0], min(one[1]))):
        begin, end = min(at), max(at) + 1 + shape.steps_ahead
        if spans[key] and begin <= spans[key][-1][1]:
            spans[key][-1][1] = max(spans[key][-1][1], end)
        else:
            spans[key].append([begin, end])
    last = max(steps) + 1 + shape.steps_ahead
    in_use = [
        sum(bytes_of(key) for key, of_it in spans.items() if any(begin <= step < end for begin, end in of_it))
        for step in range(last)
    ]
    return max(in_use), sum(bytes_of(key) * len(of_it) for key, of_it in spans.items())


def test_an_epoch_of_nothing_has_no_numbers_to_divide_by() -> None:
    shape = run_shape(rows_per_step=2, mini_batch=1, pack_tokens=8, num_ranks=1, num_nodes=1, steps_ahead=0)
    facts = counted([], shape)
    assert (facts.steps, facts.working_set_bytes, facts.row_fill) == (0, 0, 0)
