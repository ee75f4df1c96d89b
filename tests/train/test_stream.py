import threading
from collections.abc import Generator
from contextlib import closing
from typing import Any

import pytest

from vlm_catalogs.errors import DataError
from vlm_train.stream import ROWS_AHEAD_PER_WORKER, made_in_order, steps_of

THREADS = ("encode", "make")


def encode(planned: int) -> int:
    return planned


def encode_but_fail_at_5(planned: int) -> int:
    if planned == 5:
        raise DataError("row 5 is broken")
    return planned


def fail_at_step_of_4(step: list[int]) -> list[int]:
    if 4 in step:
        raise DataError("step of row 4 is broken")
    return step


def steps_made(
    num_rows: int, *, encode: Any = encode, make: Any = list, num_workers: int, size: int = 2
) -> Generator[list[int]]:
    return made_in_order(steps_of(range(num_rows), rows_per_step=size), encode, make, num_workers=num_workers)


def threads_left() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(THREADS)]


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_steps_come_in_their_order_whoever_encodes_them(num_workers: int) -> None:
    later = threading.Event()

    def encode_row_0_last(planned: int) -> int:
        if num_workers > 1 and planned == 0:
            assert later.wait(10)
        later.set()
        return encode(planned)

    with closing(steps_made(40, encode=encode_row_0_last, num_workers=num_workers)) as made:
        assert list(made) == [[row, row + 1] for row in range(0, 40, 2)]
    assert not threads_left()


@pytest.mark.parametrize("num_workers", [0, 1, 3])
@pytest.mark.parametrize("broken", [{"encode": encode_but_fail_at_5}, {"make": fail_at_step_of_4}])
def test_an_error_comes_where_its_step_would_have_come_and_ends_the_stream(
    num_workers: int, broken: dict[str, Any]
) -> None:
    seen = []
    with closing(steps_made(40, **broken, num_workers=num_workers)) as made:
        with pytest.raises(DataError, match="is broken"):
            for step in made:
                seen.append(step)
        assert list(made) == []
    assert seen == [[0, 1], [2, 3]]
    assert not threads_left()


@pytest.mark.parametrize("size", [2, 100])
def test_while_a_step_trains_the_next_is_made_and_no_more_is_read_than_that(size: int) -> None:
    num_workers = 2
    encoded: list[int] = []
    made: list[int] = []
    second = threading.Event()

    def remember(planned: int) -> int:
        encoded.append(planned)
        return planned

    def make(step: list[int]) -> list[int]:
        made.append(step[0])
        if len(made) > 1:
            second.set()
        return step

    steps = steps_made(10_000, encode=remember, make=make, num_workers=num_workers, size=size)
    assert next(steps)[0] == 0
    assert second.wait(10), "the second step waits until somebody asks for it"
    steps.close()
    assert len(encoded) <= size + max(size, num_workers * ROWS_AHEAD_PER_WORKER)
    assert not threads_left()


def test_without_workers_nothing_is_done_before_it_is_asked_for() -> None:
    encoded: list[int] = []
    steps = steps_made(40, encode=lambda planned: encoded.append(planned), num_workers=0)
    assert not encoded
    next(steps)
    assert encoded == [0, 1]


def test_closing_while_a_row_is_read_waits_for_that_row_alone() -> None:
    begun, may_end = threading.Event(), threading.Event()
    encoded: list[int] = []

    def slow_from_2_on(planned: int) -> int:
        if planned >= 2:
            begun.set()
            assert may_end.wait(10)
        encoded.append(planned)
        return planned

    steps = steps_made(40, encode=slow_from_2_on, num_workers=1)
    next(steps)
    assert begun.wait(10)
    threading.Timer(0.2, may_end.set).start()
    steps.close()
    assert encoded == [0, 1, 2]
    assert not threads_left()


def test_a_table_that_ends_within_a_step_is_an_error() -> None:
    assert list(steps_of(range(8), rows_per_step=4)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(DataError, match="3 of 4 rows"):
        list(steps_of(range(7), rows_per_step=4))
