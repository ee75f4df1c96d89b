"""What of a source is changed, new and gone."""

from vlm_prep.changed_since import Change, compare

OLD = {"a.tar": {(1, "x")}, "b.tar": {(2, "y")}}


def test_changed_new_and_gone_files_are_named() -> None:
    change = compare(OLD, {"a.tar": {(1, "z")}, "c.tar": {(3, "w")}}, is_whole=True)
    assert change == Change(changed=("a.tar",), new=("c.tar",), gone=("b.tar",))
    assert str(change) == "changed: a.tar; new: c.tar; gone: b.tar"


def test_many_files_are_counted() -> None:
    now = {**OLD, **{f"{number}.tar": {(number, "")} for number in range(9)}}
    assert str(compare(OLD, now, is_whole=True)) == "new: 0.tar, 1.tar, 2.tar and 6 more"


def test_the_same_files_are_no_change() -> None:
    assert compare(OLD, dict(OLD), is_whole=True) is None


def test_of_a_version_with_some_of_the_parts_the_others_are_not_new() -> None:
    assert (
        compare({"a.jsonl": {(0, "x")}}, {"a.jsonl": {(0, "x"), (1, "y")}, "b.jsonl": {(0, "")}}, is_whole=False)
        is None
    )
    change = compare({"a.jsonl": {(0, "x")}}, {"a.jsonl": {(0, "other")}}, is_whole=False)
    assert change == Change(changed=("a.jsonl",), new=(), gone=())
