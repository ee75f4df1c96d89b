import random
from dataclasses import dataclass

from vlm_train.rank_rows import rows_of_rank, rows_of_ranks


@dataclass(frozen=True)
class Row:
    step: int
    row: int
    vision_patches: int


def packed(step: int, row: int, draw: random.Random) -> tuple[Row, ...]:
    return tuple(Row(step, row, draw.randint(0, 900)) for _ in range(draw.randint(1, 3)))


def test_every_row_goes_to_one_rank_and_ranks_get_as_many() -> None:
    for seed in range(200):
        draw = random.Random(seed)
        num_ranks, each, steps = draw.choice([1, 2, 3, 8]), draw.randint(1, 6), draw.randint(1, 4)
        rows = [packed(step, row, draw) for step in range(steps) for row in range(num_ranks * each)]
        shares = [
            list(rows_of_rank(rows, rows_per_step=num_ranks * each, rank=rank, num_ranks=num_ranks))
            for rank in range(num_ranks)
        ]
        assert sorted((row for share in shares for row in share), key=lambda one: (one[0].step, one[0].row)) == rows
        for share in shares:
            assert [row[0].step for row in share] == [step for step in range(steps) for _ in range(each)]


def test_no_rank_has_more_than_one_row_of_patches_above_another() -> None:
    for seed in range(200):
        draw = random.Random(seed)
        patches = [draw.randint(0, 1000) for _ in range(32)]
        loads = [sum(patches[row] for row in rows) for rows in rows_of_ranks(patches, num_ranks=4)]
        assert max(loads) - min(loads) <= max(patches)
