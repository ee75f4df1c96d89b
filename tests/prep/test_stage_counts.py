"""How far a stage is, counted by source; the times are given, so every figure is known."""

import pytest

from vlm_prep.stage_counts import Made, Piece, StageCounts

PIECES = [Piece(source=name, part=part, work=100) for name, part in [("a", "0"), ("a", "1"), ("b", "0"), ("c", "0")]]


def test_rates_and_time_left_are_those_of_each_source_and_of_all() -> None:
    counts = StageCounts(PIECES, num_workers=1, now=10.0)
    counts.done(("a", "0"), Made(samples=50, bytes=4_000, rejected={"media_empty": 2}), now=15.0)
    a, b, c = counts.sources(now=15.0)
    assert (a.share, a.samples, a.seconds, a.seconds_left) == (0.5, 50, 5.0, 5.0)
    assert (a.per_second(a.samples), a.per_second(a.bytes)) == (10.0, 800.0)
    assert (b.share, b.seconds_left, c.seconds) == (0.0, None, 0.0)
    total = counts.in_all([a, b, c], name="convert", now=15.0)
    assert (total.share, total.seconds_left, total.rejected) == (0.25, 15.0, {"media_empty": 2})


def test_a_source_is_timed_from_its_first_part_in_work_to_its_last_one_done() -> None:
    counts = StageCounts(PIECES, num_workers=1, now=0.0)
    counts.done(("a", "0"), Made(samples=1), now=1.0)
    counts.done(("a", "1"), Made(samples=1), now=4.0)
    counts.done(("b", "0"), Made(samples=6), now=6.0)
    a, b, c = counts.sources(now=100.0)
    assert (a.seconds, a.is_done, a.seconds_left) == (4.0, True, 0.0)
    assert (b.seconds, b.per_second(b.samples)) == (2.0, 3.0)
    assert c.seconds == 94.0
    assert counts.ended() == ["a", "b"]


@pytest.mark.parametrize("num_workers", [1, 2, 9])
def test_the_pieces_in_work_are_the_first_that_are_not_done(num_workers: int) -> None:
    counts = StageCounts(PIECES, num_workers=num_workers, now=0.0)
    counts.done(("a", "1"), Made(), now=1.0)
    waiting = [PIECES[0], PIECES[2], PIECES[3]]
    assert counts.in_work == waiting[:num_workers]


def test_what_stands_of_a_part_in_work_counts_until_the_part_is_done() -> None:
    counts = StageCounts(PIECES, num_workers=1, now=0.0)
    ahead = {("a", "0"): Made(samples=30, bytes=10, share=0.5)}
    a, *_ = counts.sources(now=2.0, ahead=ahead)
    assert (a.work, a.samples, a.bytes, a.num_done, a.seconds_left) == (50.0, 30, 10, 0, 6.0)
    counts.done(("a", "0"), Made(samples=61, bytes=21), now=4.0)
    a, *_ = counts.sources(now=4.0, ahead=ahead)
    assert (a.work, a.samples, a.bytes) == (100.0, 61, 21)


def test_a_piece_is_counted_once() -> None:
    counts = StageCounts(PIECES, num_workers=1, now=0.0)
    counts.done(("a", "0"), Made(), now=1.0)
    with pytest.raises(KeyError):
        counts.done(("a", "0"), Made(), now=2.0)


def test_a_source_of_empty_pieces_goes_by_their_number() -> None:
    counts = StageCounts([Piece(source="a", part=str(number), work=0) for number in range(4)], num_workers=1, now=0.0)
    counts.done(("a", "0"), Made(), now=1.0)
    (a,) = counts.sources(now=1.0)
    assert (a.share, a.seconds_left) == (0.25, 3.0)
