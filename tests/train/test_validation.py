import math
import random
from dataclasses import replace

import pytest

from vlm_catalogs import json_text
from vlm_train.planned_rows import empty_line
from vlm_train.step_result import SampleLoss
from vlm_train.validation import rows_of_rank, summarise


@pytest.mark.parametrize("num_rows", [1, 5, 6, 7, 13])
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("num_ranks", [1, 2, 3, 8])
def test_ranks_have_the_batches_of_one_rank_and_as_many_each(num_rows: int, batch_size: int, num_ranks: int) -> None:
    rows = [(replace(empty_line(), status="planned", row=number),) for number in range(num_rows)]
    of_ranks = [rows_of_rank(rows, batch_size=batch_size, rank=rank, num_ranks=num_ranks) for rank in range(num_ranks)]
    assert len({len(mine) for mine in of_ranks}) == 1
    alone = rows_of_rank(rows, batch_size=batch_size, rank=0, num_ranks=1)
    batches = [mine[at : at + batch_size] for mine in of_ranks for at in range(0, len(mine), batch_size)]
    whole = [alone[at : at + batch_size] for at in range(0, len(alone), batch_size)]
    assert all(batch in batches for batch in whole)
    planned = [row for mine in of_ranks for row in mine if row[0].status == "planned"]
    assert sorted(row[0].row for row in planned) == list(range(num_rows))


def loss(dataset: str, total: float, tokens: int) -> SampleLoss:
    return SampleLoss(dataset=dataset, sample_id="s", loss_sum=total, num_supervised_tokens=tokens, num_tokens=9)


def test_means_weigh_tokens_and_do_not_depend_on_the_order() -> None:
    generator = random.Random(3)
    losses = [loss("ab"[number % 2], generator.uniform(0, 1e6), number) for number in range(1, 500)]
    expected = summarise(losses)
    tokens = sum(one.num_supervised_tokens for one in losses)
    assert expected.loss == math.fsum(one.loss_sum for one in losses) / tokens
    assert list(expected.by_dataset) == ["a", "b"]
    generator.shuffle(losses)
    assert summarise(losses) == expected


def test_a_dataset_without_supervised_tokens_has_no_loss() -> None:
    found = summarise([loss("a", 4.0, 2), loss("none", 0.0, 0)])
    assert (found.loss, found.by_dataset, found.num_samples) == (2.0, {"a": 2.0}, 2)


def test_a_loss_that_is_not_finite_is_named_and_is_no_number() -> None:
    found = summarise([loss("a", math.nan, 2), loss("b", 4.0, 2)], undecodable=["b/x: broken"])
    assert found.loss is None
    assert found.metrics() == {
        "validation/loss/b": 2.0,
        "validation/samples": 2,
        "validation/supervised_tokens": 4,
        "validation/not_finite": ["a/s"],
        "validation/undecodable": ["b/x: broken"],
    }
    json_text.loads(json_text.dumps(found.metrics()))  # as metrics.jsonl and state.json are read
