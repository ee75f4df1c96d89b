"""Lists, held-out sets, duplicates, the eval split and caps: each on an index small enough to print."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from vlm_catalogs.hashing import sample_key
from vlm_catalogs.tables import LENGTHS, MEDIA, SAMPLES
from vlm_prep.row_groups import write_table
from vlm_prep.select import Population, Rules, open_index, select_samples
from vlm_prep.selection_rules import Caps, DuplicateRule, EvalRule

TOKENS = 10


class Index:
    """Samples of datasets ``a`` and ``b`` with named texts and media."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.samples: list[dict[str, Any]] = []
        self.media: list[dict[str, Any]] = []

    def add(self, name: str, *, text: str = "", media: str = "") -> "Index":
        """A sample ``dataset/id``; ``media`` is a word of which every letter is a medium."""
        dataset, sample_id = name.split("/")
        keys = {"dataset": dataset, "sample_id": sample_id, "sample_key": sample_key(dataset, sample_id)}
        places = {
            "num_videos": 0,
            "num_alternatives": 1,
            "part": "p",
            "shard": 0,
            "index_in_shard": 0,
            "status": "kept",
        }
        hashes = {"text_hash": text or f"text of {name}", "media_hash": media, "num_images": len(media)}
        self.samples.append({**keys, **places, **hashes})
        self.media += [{**keys, "position": place, "xxh3_128": each} for place, each in enumerate(media)]
        return self

    def select(self, **rules: Any) -> dict[str, str]:
        """Sample -> its reason, else its split."""
        counts = dict.fromkeys(("text_tokens", "image_tokens", "video_tokens", "vision_patches", "alternative"), 0)
        lengths = [
            {**counts, "sample_key": one["sample_key"], "total_tokens": TOKENS, "supervised_tokens": 1}
            for one in self.samples
        ]
        tables = {"samples": (self.samples, SAMPLES), "lengths": (lengths, LENGTHS), "media": (self.media, MEDIA)}
        for name, (rows, schema) in tables.items():
            write_table(pa.Table.from_pylist(rows, schema=schema), self.folder / f"{name}.parquet")
        if (decoded := rules.pop("decoded", None)) is not None:
            write_table(decoded, self.folder / "decoded.parquet")
        files = {name: (self.folder / f"{name}.parquet",) for name in tables}
        population = Population(**files, decoded=None if decoded is None else (self.folder / "decoded.parquet",))
        caps = rules.pop("caps", None) or Caps(fractions={"a": 1.0, "b": 1.0})
        asked = Rules(**{"caps": caps, "include_video": True, "model_max_length": 99, "seed": 0, **rules})
        with open_index(self.folder) as index:
            selection = select_samples(index, population, asked)
        rows, self.notes = selection.rows.to_pylist(), selection.notes
        assert all(row["selected"] == (row["reason"] is None) for row in rows)
        return {f"{row['dataset']}/{row['sample_id']}": row["reason"] or row["split"] for row in rows}


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(tmp_path)


def listed(*names: str) -> pa.Table:
    rows = [dict(zip(("dataset", "sample_id"), name.split("/"), strict=True)) for name in names]
    return pa.Table.from_pylist(rows, schema=pa.schema([("dataset", pa.string()), ("sample_id", pa.string())]))


def test_lists_exclude_and_include_by_dataset_and_id(index: Index) -> None:
    index.add("a/1").add("a/2").add("b/1").add("b/2")
    assert index.select(excluded=listed("a/1", "a/9")) == {
        "a/1": "excluded",
        "a/2": "train",
        "b/1": "train",
        "b/2": "train",
    }
    both = index.select(included=listed("a/1", "b/2"), excluded=listed("b/2"))
    assert both == {"a/1": "train", "a/2": "not_included", "b/1": "not_included", "b/2": "excluded"}
    assert set(index.select(included=listed()).values()) == {"not_included"}


def test_of_duplicates_the_first_by_priority_stays(index: Index) -> None:
    index.add("a/1", text="t", media="x").add("b/1", text="t", media="x").add("b/2", text="t", media="y").add(
        "b/3", text="t"
    )
    both = index.select(duplicates=DuplicateRule(by="both", priority=("b",)))
    assert both == {"a/1": "duplicate_of_both", "b/1": "train", "b/2": "train", "b/3": "train"}
    assert index.select(duplicates=DuplicateRule(by="both", priority=("a", "b")))["b/1"] == "duplicate_of_both"
    inside = index.select(duplicates=DuplicateRule(by="both", across=False))
    assert set(inside.values()) == {"train"}
    text = index.select(duplicates=DuplicateRule(by="text", priority=("a",)))
    assert text == {"a/1": "train", **dict.fromkeys(("b/1", "b/2", "b/3"), "duplicate_of_text")}


def test_samples_without_media_are_no_duplicates_by_media(index: Index) -> None:
    index.add("a/1").add("a/2").add("a/3", media="xy").add("a/4", media="yx").add("a/5", media="xy")
    found = Counter(index.select(duplicates=DuplicateRule(by="media")).values())
    assert found == {"train": 4, "duplicate_of_media": 1}, "the order of the media counts"


def test_what_left_before_is_not_the_one_that_stays(index: Index) -> None:
    index.add("a/1", text="t").add("b/1", text="t")
    rule = DuplicateRule(by="both", priority=("a",))
    assert index.select(duplicates=rule, excluded=listed("a/1")) == {"a/1": "excluded", "b/1": "train"}


def test_held_out_media_and_texts_leave(index: Index) -> None:
    index.add("a/1", media="xy").add("a/2", media="z", text="seen").add("a/3", text="seen").add("a/4")
    found = index.select(held_out=pa.table({"hash": ["y", "seen"]}))
    assert found == {"a/1": "held_out", "a/2": "train", "a/3": "held_out", "a/4": "train"}


def test_the_eval_split_never_shares_a_medium_with_train(index: Index) -> None:
    chain = "abcdefghijklmnopqrstuvwxyz"
    for number, pair in enumerate(pairwise(chain)):
        if number % 5 != 4:  # chains of four samples, each sharing a medium with the next one, over both datasets
            index.add(f"{'ab'[number % 2]}/{number:02d}", media="".join(pair))
    for number in range(40):
        index.add(f"a/alone{number:02d}", text=f"text {number // 2}")
    splits = index.select(eval_split=EvalRule(fraction=0.3))
    media = {f"{one['dataset']}/{one['sample_id']}": one for one in index.samples}
    by_split: dict[str, set[str]] = {"train": set(), "eval": set()}
    for name, split in splits.items():
        sample = media[name]
        by_split[split] |= set(sample["media_hash"]) or {sample["text_hash"]}
    assert not by_split["train"] & by_split["eval"]
    num_eval = Counter(splits.values())["eval"]
    assert 0.3 * 60 <= num_eval <= 0.3 * 60 + 2 * 4, "no less than asked, and at most a group of each dataset more"
    assert index.select(eval_split=EvalRule(fraction=0.3)) == splits
    assert index.select(eval_split=EvalRule(fraction=0.3), seed=1) != splits


def test_the_eval_split_takes_a_number_of_the_datasets_that_are_named(index: Index) -> None:
    for number in range(20):
        index.add(f"a/{number:02d}").add(f"b/{number:02d}")
    splits = index.select(eval_split=EvalRule(num_samples=3, datasets=("b",)))
    assert Counter((name[0], split) for name, split in splits.items()) == {
        ("a", "train"): 20,
        ("b", "train"): 17,
        ("b", "eval"): 3,
    }


def test_caps_take_samples_and_tokens_in_an_order_that_only_grows(index: Index) -> None:
    for number in range(20):
        index.add(f"a/{number:02d}").add(f"b/{number:02d}")
    everything = {"a": 1.0, "b": 1.0}

    def kept(caps: Caps) -> set[str]:
        return {name for name, split in index.select(caps=caps).items() if split == "train"}

    few = kept(Caps(fractions=everything, max_samples={"a": 4}))
    more = kept(Caps(fractions=everything, max_samples={"a": 9}))
    assert Counter(name[0] for name in few) == {"a": 4, "b": 20}
    assert few < more
    by_tokens = index.select(caps=Caps(fractions=everything, max_tokens={"b": 5 * TOKENS + 1}))
    assert Counter(by_tokens.values()) == {"train": 25, "over_max_tokens": 15}
    both = index.select(caps=Caps(fractions={"a": 0.5, "b": 1.0}, max_samples={"a": 3}))
    assert Counter(both.values()) == {"train": 23, "not_in_subsample": 10, "over_max_samples": 7}


def test_caps_leave_the_eval_split_alone(index: Index) -> None:
    for number in range(20):
        index.add(f"a/{number:02d}")
    rule = EvalRule(num_samples=5)
    splits = index.select(eval_split=rule, caps=Caps(fractions={"a": 1.0}, max_samples={"a": 2}))
    assert Counter(splits.values()) == {"eval": 5, "train": 2, "over_max_samples": 13}
