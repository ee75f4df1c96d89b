"""Which rank keeps the others waiting, as files of the ranks tell it."""

import pytest

from vlm_train.rank_watch import Told, all_stacks, who_is_stuck


def told(rank: int, *, things: int, times: int, doing: str = "step 5") -> Told:
    return Told(rank=rank, pid=100 + rank, host="a", doing=doing, num_things=things, since=9.0, told=times)


MINE = told(0, things=12, times=7)


@pytest.mark.parametrize(
    ("before", "after", "text", "ranks"),
    [
        ([told(1, things=12, times=3)], [told(1, things=12, times=4)], "all 2 ranks are at this", ()),
        ([told(1, things=12, times=3)], [told(1, things=12, times=3)], "rank 1 (pid 101 on a) is not heard", (1,)),
        ([], [], "rank 1 has told nothing", (1,)),
        ([], [told(1, things=11, times=1, doing="waiting")], "rank 1 (pid 101 on a) is behind: waiting", (1,)),
        ([], [told(1, things=13, times=1)], "rank 0 (pid 100 on a) is behind: step 5", (0,)),
    ],
)  # fmt: skip
def test_silent_ranks_come_before_those_that_are_behind(
    before: list[Told], after: list[Told], text: str, ranks: tuple[int, ...]
) -> None:
    looks = ({one.rank: one for one in look} for look in (before, after))
    blame = who_is_stuck(MINE, *looks, size=2)
    assert blame.text.startswith(text)
    assert blame.ranks == ranks


def test_many_ranks_are_named_by_three() -> None:
    blame = who_is_stuck(MINE, {}, {}, size=9)
    assert blame.text.endswith("; and 5 more")
    assert blame.first_to_tell == 0


def test_stacks_show_the_main_thread_first() -> None:
    text = all_stacks()
    assert text.startswith("thread MainThread:")
    assert "test_stacks_show_the_main_thread_first" in text
