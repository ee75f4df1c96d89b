"""Near duplicates: the groups that comparing every pair gives, and real pictures that were encoded again."""

from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.made_media import encoded
from tests.prep.test_selection_rules import Index

from vlm_catalogs.decode import decode_image
from vlm_catalogs.hashing import content_hash
from vlm_catalogs.tables import DECODED
from vlm_prep.decoded import image_facts
from vlm_prep.near_duplicates import BLOCKS, NearHashes, label_near_hashes, masks
from vlm_prep.selection_rules import DuplicateRule

PICTURES = sorted((Path(__file__).parents[1] / "demo_data" / "jsonl" / "media").rglob("*.*"))
PICTURES = [path for path in PICTURES if path.suffix in (".jpg", ".png", ".webp")]


def find_groups(hashes: Iterable[int], distance: int, **options: int) -> tuple[set[frozenset[int]], NearHashes]:
    """The groups of two hashes and more that DuckDB finds, and what it compared."""
    with duckdb.connect() as index:
        index.register("rows", pa.table({"hash": pa.array(sorted(set(hashes)), pa.uint64())}))
        index.execute("create table hashes as select * from rows")
        compared = label_near_hashes(index, distance=distance, **options)
        groups: dict[int, set[int]] = {}
        for node, label in index.execute("select node, label from labels").fetchall():
            groups.setdefault(label, set()).add(node)
    return {frozenset(group) for group in groups.values()}, compared


def groups_by_comparing_all(hashes: Iterable[int], distance: int) -> set[frozenset[int]]:
    groups = [{one} for one in set(hashes)]
    for one, other in combinations(sorted(set(hashes)), 2):
        if (one ^ other).bit_count() <= distance:
            of_one, of_other = (next(group for group in groups if each in group) for each in (one, other))
            if of_one is not of_other:
                groups.remove(of_other)
                of_one |= of_other
    return {frozenset(group) for group in groups if len(group) > 1}


def flipped(number: int, places: Iterable[int]) -> int:
    for place in places:
        number ^= 1 << place
    return number


clouds_of_hashes = st.lists(
    st.tuples(st.integers(0, 2**64 - 1), st.lists(st.lists(st.integers(0, 63), max_size=5), min_size=1, max_size=6)),
    min_size=1,
    max_size=8,
)


@settings(max_examples=20, deadline=None)
@given(clouds=clouds_of_hashes, distance=st.integers(0, 3))
def test_groups_are_those_of_comparing_every_pair(clouds: list[tuple[int, list[list[int]]]], distance: int) -> None:
    hashes = {flipped(centre, each) for centre, around in clouds for each in around}
    groups, compared = find_groups(hashes, distance)
    assert groups == groups_by_comparing_all(hashes, distance)
    pairs = [(one ^ other).bit_count() for one, other in combinations(hashes, 2)]
    assert compared.num_pairs == sum(bits <= distance for bits in pairs)


def test_three_bits_wherever_they_are_leave_two_blocks_whole() -> None:
    assert sum(BLOCKS) == 64 and len(masks()) == 10
    for places in combinations(range(64), 3):
        bits = flipped(0, places)
        assert any(not bits & mask for mask in masks())


def test_a_chain_is_one_group_however_long() -> None:
    chain = [0x0F0F0F0F0F0F0F0F]
    for place in range(0, 60, 3):
        chain.append(flipped(chain[-1], range(place, place + 3)))
    assert find_groups(chain, 3)[0] == {frozenset(chain)}
    assert find_groups(chain, 2)[0] == set()


def test_in_a_crowded_bucket_nothing_is_compared_and_that_is_counted() -> None:
    crowd = [0x0F0F_0F0F_0F0F_0000 | number for number in range(40)]  # they differ in the lowest of the five blocks
    pair = [0xF0F0_F0F0_F0F0_F0F0, 0xF0F0_F0F0_F0F0_F0F1]
    groups, compared = find_groups([*crowd, *pair], 3, max_bucket=30)
    assert groups == {frozenset(pair)}
    assert (compared.num_hashes, compared.num_pairs) == (42, 1)
    assert (compared.num_crowded, compared.num_in_crowded) == (6, 6 * 40), "the six pairs of the other four blocks"


class Pictures(Index):
    """Samples whose media have perceptual hashes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.decoded: list[dict[str, Any]] = []

    def show(self, name: str, *pictures: bytes | int, text: str = "same") -> "Pictures":
        """A sample of encoded pictures, or of media with these hashes."""
        contents = [one if isinstance(one, bytes) else f"{name} {one}".encode() for one in pictures]
        self.add(name, text=text, media=content_hash(b"".join(contents)))
        self.samples[-1]["num_images"] = len(contents)
        keys = {key: self.samples[-1][key] for key in ("dataset", "sample_id", "sample_key")}
        for position, (one, content) in enumerate(zip(pictures, contents, strict=True)):
            facts = image_facts(memoryview(one)) if isinstance(one, bytes) else {"decoded": True, "phash": one}
            hashed = {"xxh3_128": content_hash(content), "kind": "image", "position": position}
            self.decoded.append({**keys, **hashed, **facts})
        return self

    def leave(self, **rule: Any) -> dict[str, str]:
        """Sample -> its reason, else its split."""
        rows = pa.Table.from_pylist(self.decoded, schema=DECODED)
        return self.select(duplicates=DuplicateRule(**rule), decoded=rows)


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    return Pictures(tmp_path)


A, B = 0x0123456789ABCDEF, 0xFEDC00FF12345678


def test_near_pictures_with_one_text_leave_all_but_the_first_by_priority(pictures: Pictures) -> None:
    pictures.show("a/1", A).show("b/1", A ^ 0b111).show("b/2", A ^ 1, text="other").show("a/2", A ^ 0xF).show("a/3", B)
    assert pictures.leave(by="both", near=3, priority=("b",)) == {
        "a/1": "near_duplicate",
        "a/2": "near_duplicate",
        "a/3": "train",
        "b/1": "train",
        "b/2": "train",
    }
    assert set(pictures.leave(by="both", near=0).values()) == {"train"}
    inside = pictures.leave(by="both", near=3, across=False)
    first = min(pictures.samples[0], pictures.samples[3], key=lambda one: one["sample_key"])["sample_id"]
    assert [name for name, reason in inside.items() if reason == "near_duplicate"] == [f"a/{3 - int(first)}"]


def test_by_none_and_by_text_nobody_leaves_for_near_pictures(pictures: Pictures) -> None:
    pictures.show("a/1", A, text="one").show("b/1", A ^ 1, text="two")
    for by in ("none", "text"):
        assert set(pictures.leave(by=by, near=3).values()) == {"train"}
        assert pictures.notes[0] == "near duplicates: 2 different hashes of pictures, 1 pairs of them within 3 bits"
        assert pictures.notes[1].startswith("near duplicates: 2 samples that stay show nearly the same pictures")
    assert pictures.leave(by="media", near=3, priority=("b",)) == {"a/1": "near_duplicate", "b/1": "train"}
    assert len(pictures.notes) == 1


def test_every_picture_of_a_sample_counts_in_its_place(pictures: Pictures) -> None:
    pictures.show("a/1", A, B).show("a/2", A ^ 1, B ^ 2).show("a/3", B, A).show("a/4", A).show("a/5", A, B, B)
    found = pictures.leave(by="media", near=3)
    assert sorted([found.pop("a/1"), found.pop("a/2")]) == ["near_duplicate", "train"]
    assert set(found.values()) == {"train"}


def test_blank_pictures_are_compared_by_their_bytes_only(pictures: Pictures) -> None:
    pictures.show("a/1", 0).show("a/2", 0).show("a/3", 0b111).show("a/4", 2**64 - 1).show("a/5", 2**64 - 2)
    assert set(pictures.leave(by="media", near=3).values()) == {"train"}
    assert "near duplicates: 5 blank pictures are compared by their bytes only" in pictures.notes


def test_what_left_before_makes_nobody_leave(pictures: Pictures) -> None:
    content = PICTURES[0].read_bytes()
    again = bytes(encoded(Image.fromarray(decode_image(memoryview(content))), "JPEG", quality=80))
    pictures.show("a/1", content).show("b/1", content).show("b/2", again)
    found = pictures.leave(by="both", near=3, priority=("a", "b"))
    assert found == {"a/1": "train", "b/1": "duplicate_of_both", "b/2": "near_duplicate"}


def changed(content: bytes) -> Iterator[bytes]:
    """The same picture encoded again, smaller, larger, and with a column cut off."""
    picture = Image.fromarray(decode_image(memoryview(content)))
    yield bytes(encoded(picture, "JPEG", quality=70))
    yield bytes(encoded(picture, "WEBP", quality=60))
    yield bytes(encoded(picture.resize((picture.width * 2 // 3, picture.height * 2 // 3)), "PNG"))
    yield bytes(encoded(picture.resize((picture.width * 2, picture.height * 2)), "JPEG", quality=90))
    yield bytes(encoded(picture.crop((1, 0, picture.width, picture.height)), "PNG"))


def test_of_real_pictures_that_were_changed_one_stays(pictures: Pictures) -> None:
    chosen = PICTURES[::5]
    for number, path in enumerate(chosen):
        pictures.show(f"a/{number:02d}", path.read_bytes())
        for way, content in enumerate(changed(path.read_bytes())):
            pictures.show(f"b/{number:02d}-{way}", content)
    found = pictures.leave(by="both", near=3, priority=("a",))
    originals = {found[f"a/{number:02d}"] for number in range(len(chosen))}
    copies = [reason == "near_duplicate" for name, reason in found.items() if name.startswith("b/")]
    assert originals == {"train"}
    assert len(copies) == 5 * len(chosen)
    assert np.mean(copies) >= 0.95
