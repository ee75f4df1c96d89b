"""An index larger than the memory that DuckDB may use: selection goes to disk and decides the same."""

import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from vlm_catalogs.errors import StorageError
from vlm_catalogs.tables import DECODED, LENGTHS, MEDIA, SAMPLES
from vlm_prep.row_groups import write_table
from vlm_prep.select import Population, Rules, open_index, select_samples
from vlm_prep.selection_rules import Caps, DuplicateRule

NUM_SAMPLES = 150_000
MEMORY = 64 << 20


def table(schema: pa.Schema, columns: dict[str, object]) -> pa.Table:
    """The columns, and nothing in the others."""
    arrays = [pa.array(columns.get(field.name, [None] * NUM_SAMPLES), field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


@pytest.fixture
def population(tmp_path: Path) -> Population:
    """Samples of one picture each, of which one in four is near another one with the same text."""
    random = np.random.default_rng(0)
    numbers = np.arange(NUM_SAMPLES)
    original = np.where(numbers % 4 == 3, numbers - 3, numbers)
    hashes = random.integers(0, 2**63, NUM_SAMPLES, dtype=np.uint64)[original] ^ (numbers % 4 == 3).astype(np.uint64)
    names, texts = ([f"{number:032x}" for number in each] for each in (numbers, original))
    one, none = np.ones(NUM_SAMPLES, np.int32), np.zeros(NUM_SAMPLES, np.int32)
    same = {"dataset": ["d"] * NUM_SAMPLES, "sample_id": names, "sample_key": numbers}
    hashed = {"position": none, "xxh3_128": names, "kind": ["image"] * NUM_SAMPLES}
    counted = {"num_images": one, "num_videos": none, "status": ["kept"] * NUM_SAMPLES}
    tables = {
        "samples": table(SAMPLES, {**same, **counted, "media_hash": names, "text_hash": texts}),
        "lengths": table(LENGTHS, {**same, "alternative": none, "total_tokens": one, "supervised_tokens": one}),
        "media": table(MEDIA, {**same, **hashed, "referenced": [True] * NUM_SAMPLES}),
        "decoded": table(DECODED, {**same, **hashed, "decoded": [True] * NUM_SAMPLES, "phash": hashes}),
    }
    for name, rows in tables.items():
        write_table(rows, tmp_path / f"{name}.parquet")
    return Population(**{name: (tmp_path / f"{name}.parquet",) for name in tables})


def test_what_does_not_fit_into_memory_goes_to_disk_and_decides_the_same(
    population: Population, tmp_path: Path
) -> None:
    rules = Rules(
        caps=Caps(fractions={"d": 0.5}),
        include_video=True,
        model_max_length=99,
        seed=0,
        duplicates=DuplicateRule(by="both", near=3),
    )
    with open_index(tmp_path) as index:
        expected = select_samples(index, population, rules)
    assert sum(reason == "near_duplicate" for reason in expected.rows["reason"].to_pylist()) == NUM_SAMPLES // 4
    with open_index(tmp_path, max_bytes=MEMORY) as index:
        assert select_samples(index, population, rules) == expected
    with pytest.raises(StorageError), open_index(tmp_path, max_bytes=MEMORY) as index:
        index.execute("set max_temp_directory_size = '0KB'")
        select_samples(index, population, rules)


def test_a_disk_that_is_full_when_selection_spills_is_said_and_it_decides_the_same_with_room(
    population: Population, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=False).returncode:
        pytest.skip("mounting needs root")
    request.addfinalizer(lambda: subprocess.run(["umount", disk], check=True))
    rules = Rules(caps=Caps(fractions={"d": 0.5}), include_video=True, model_max_length=99, seed=0)
    with (
        pytest.raises(StorageError, match="disk: the index cannot be asked"),
        open_index(disk, max_bytes=MEMORY) as index,
    ):
        select_samples(index, population, rules)
    assert not list(disk.rglob("*.tmp")) and not list(disk.rglob("*.block"))
    subprocess.run(["mount", "-o", "remount,size=2g", disk], check=True)
    with open_index(tmp_path) as index:
        expected = select_samples(index, population, rules)
    with open_index(disk, max_bytes=MEMORY) as index:
        assert select_samples(index, population, rules) == expected
