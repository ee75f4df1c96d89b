import threading
from contextlib import closing

import pytest

from vlm_catalogs.errors import DataError
from vlm_train.stream import ROWS_AHEAD_PER_WORKER, encoded_in_order, steps_of


def encode(planned: int) -> int:
    return planned


def encode_but_fail_at_5(planned: int) -> int:
    if planned == 5:
        raise DataError("row 5 is broken")
    return planned


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_rows_come_in_their_order_whoever_encodes_them(num_workers: int) -> None:
    later = threading.Event()

    def encode_row_0_last(planned: int) -> int:
        if num_workers > 1 and planned == 0:
            assert later.wait(10)
        later.set()
        return encode(planned)

    with closing(encoded_in_order(range(40), encode_row_0_last, num_workers=num_workers)) as encoded:
        assert list(encoded) == list(range(40))


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_an_error_comes_where_its_row_would_have_come_and_ends_the_stream(num_workers: int) -> None:
    seen: list[int] = []
    with closing(encoded_in_order(range(40), encode_but_fail_at_5, num_workers=num_workers)) as encoded:
        with pytest.raises(DataError, match="row 5 is broken"):
            seen.extend(encoded)
        for one in encoded:
            seen.append(one)
    assert set(seen) <= {0, 1, 2, 3, 4}


def test_the_rows_before_an_error_are_still_given() -> None:
    with closing(encoded_in_order(range(40), encode_but_fail_at_5, num_workers=2)) as encoded:
        assert [next(encoded) for _ in range(5)] == [0, 1, 2, 3, 4]
        with pytest.raises(DataError):
            next(encoded)


def test_closing_early_stops_the_threads_and_reads_only_a_bounded_way_ahead() -> None:
    encoded_rows: list[int] = []

    def remember(planned: int) -> int:
        encoded_rows.append(planned)
        return encode(planned)

    encoded = encoded_in_order(range(10_000), remember, num_workers=2)
    assert next(encoded) == 0
    encoded.close()
    assert len(encoded_rows) <= 2 * ROWS_AHEAD_PER_WORKER
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("encode")]


def test_a_table_that_ends_within_a_step_is_an_error() -> None:
    assert list(steps_of(range(8), rows_per_step=4)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(DataError, match="3 of 4 rows"):
        list(steps_of(range(7), rows_per_step=4))
