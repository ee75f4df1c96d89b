import json
import os
import shutil
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.mounts import mounted

from vlm_catalogs import json_text
from vlm_catalogs.errors import DataError, StorageError
from vlm_catalogs.hashing import file_hash
from vlm_catalogs.sample import MDS_COLUMNS
from vlm_prep import shard_file
from vlm_prep.mds_shard import COLUMN_NAMES, ClosedShard, Payload, ShardWriter, shard_index_entry

Row = dict[str, Any]


def made_row(number: int, *, media: bytes) -> Row:
    return {
        "sample_id": f"part/ünïcode \U0001f600 {number}",
        "dataset": "demo",
        "messages": [{"role": "user", "content": [{"type": "text", "text": 'Straße "7"\n\0 漢字'}]}],
        "alternatives": [] if number % 2 else [[{"role": "assistant", "content": []}]],
        "media": media,
        "media_table": [{"name": "image_0", "offset": 0, "size": len(media), "fps": 29.97}] if media else [],
        "meta": {"b": 1, "a": [None, True, 1e300, -0.0]},
    }


def as_columns(row: Row) -> list[Payload]:
    def encoded(name: str) -> bytes:
        value = row[name]
        if isinstance(value, bytes):
            return value
        return (value if MDS_COLUMNS[name] == "str" else json_text.dumps(value)).encode()

    return [encoded(name) for name in COLUMN_NAMES]


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are put together by single blocks."""
    monkeypatch.setattr(shard_file, "PIECE_BYTES", shard_file.BLOCK_BYTES)
    monkeypatch.setattr(shard_file, "SPARE_PIECES", [])


def write_directly(folder: Path, rows: list[Row], *, size_limit: int, behind: bool = False) -> tuple[ClosedShard, ...]:
    folder.mkdir()
    with ShardWriter(folder, size_limit=size_limit, behind=behind) as writer:
        for row in rows:
            writer.write(as_columns(row))
        return writer.finish()


def write_with_streaming(folder: Path, rows: list[Row], *, size_limit: int) -> None:
    from streaming import MDSWriter

    with MDSWriter(columns=dict(MDS_COLUMNS), out=str(folder), hashes=[], size_limit=size_limit) as writer:
        for row in rows:
            writer.write(row)


ROW_SETS = {
    "one sample": [made_row(0, media=b"x")],
    "empty media": [made_row(number, media=b"") for number in range(3)],
    "many in several shards": [made_row(number, media=os.urandom(300 + 7 * number)) for number in range(50)],
    "a large one between small ones": [
        made_row(number, media=b"m" * (9000 if number == 2 else 9)) for number in range(5)
    ],
    "more buffers than one writev takes": [made_row(number, media=b"z") for number in range(2000)],
}


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("rows", ROW_SETS.values(), ids=ROW_SETS.keys())
@pytest.mark.parametrize("size_limit", [4096, 1 << 20])
@pytest.mark.parametrize("behind", [False, True])
def test_shards_and_index_are_those_of_mdswriter(
    tmp_path: Path, rows: list[Row], size_limit: int, behind: bool
) -> None:
    shards = write_directly(tmp_path / "direct", rows, size_limit=size_limit, behind=behind)
    write_with_streaming(tmp_path / "streaming", rows, size_limit=size_limit)
    names = sorted(path.name for path in (tmp_path / "streaming").glob("*.mds"))
    assert [shard.name for shard in shards] == names
    for name in names:
        assert (tmp_path / "direct" / name).read_bytes() == (tmp_path / "streaming" / name).read_bytes()
    entries = [
        shard_index_entry(
            basename=shard.name, num_bytes=shard.bytes, num_samples=shard.num_samples, size_limit=size_limit
        )
        for shard in shards
    ]
    assert {"version": 2, "shards": entries} == json.loads((tmp_path / "streaming/index.json").read_text())


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 8192, 50_000])
def test_a_file_is_the_same_in_small_pieces(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    cuts = [0, *sorted({size // 3, size // 2, min(4096, size), size})]
    buffers = [memoryview(content)[begin:end] for begin, end in pairwise(cuts)]
    files = shard_file.ShardFiles()
    xxh3_128 = files.write(tmp_path / "file", [b"", *buffers, b""], num_bytes=size)
    files.finish()
    files.close()
    assert (tmp_path / "file").read_bytes() == content
    assert file_hash(tmp_path / "file") == xxh3_128


def test_streaming_reads_the_samples_back(tmp_path: Path) -> None:
    from streaming.base.format.mds.reader import MDSReader

    rows = ROW_SETS["many in several shards"]
    shards = write_directly(tmp_path / "s", rows, size_limit=4096)
    read: list[Row] = []
    for shard in shards:
        entry = shard_index_entry(basename=shard.name, num_bytes=shard.bytes, num_samples=shard.num_samples)
        reader = MDSReader.from_json(str(tmp_path / "s"), None, entry)
        read.extend(reader[index] for index in range(shard.num_samples))
    assert read == rows


def test_hash_size_and_offsets_describe_the_file(tmp_path: Path) -> None:
    rows = ROW_SETS["many in several shards"]
    shards = write_directly(tmp_path / "s", rows, size_limit=4096)
    bodies = []
    for shard in shards:
        path = tmp_path / "s" / shard.name
        content = path.read_bytes()
        assert (shard.bytes, shard.xxh3_128) == (len(content), file_hash(path))
        assert shard.offsets[-1] == shard.bytes
        assert len(shard.offsets) == shard.num_samples + 1
        bodies += [content[a:b] for a, b in zip(shard.offsets, shard.offsets[1:], strict=False)]
    assert [body[28:] for body in bodies] == [b"".join(bytes(part) for part in as_columns(row)) for row in rows]  # type: ignore[arg-type]


def test_a_sample_over_the_limit_stands_alone_and_no_shard_is_empty(tmp_path: Path) -> None:
    rows = [made_row(number, media=b"m" * (9000 if number in (0, 2) else 9)) for number in range(4)]
    shards = write_directly(tmp_path / "s", rows, size_limit=4096)
    assert [shard.num_samples for shard in shards] == [1, 1, 1, 1]


def test_no_sample_makes_no_shard(tmp_path: Path) -> None:
    assert ShardWriter(tmp_path).finish() == ()
    assert list(tmp_path.iterdir()) == []


def test_positions_name_shard_and_index(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, size_limit=4096)
    positions = [writer.write(as_columns(made_row(number, media=b"m" * 1500))) for number in range(5)]
    assert [(position.shard, position.index) for position in positions] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    writer.finish()


def test_a_column_given_in_slices_is_written_as_one(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole, sliced = ShardWriter(tmp_path / "a"), ShardWriter(tmp_path / "b")
    columns = as_columns(made_row(1, media=b"abcdef"))
    whole.write(columns)
    media = COLUMN_NAMES.index("media")
    sliced.write([*columns[:media], [memoryview(b"abc"), b"", b"def"], *columns[media + 1 :]])
    assert whole.finish() == sliced.finish()


def test_payloads_are_not_copied_before_the_shard_closes(tmp_path: Path) -> None:
    media = bytearray(b"before")
    writer = ShardWriter(tmp_path)
    writer.write([b"", b"", memoryview(media), b"", b"", b"", b""])
    media[:] = b"after!"
    writer.finish()
    assert b"after!" in (tmp_path / "shard.00000.mds").read_bytes()


def test_a_sample_that_no_shard_can_hold_is_refused(tmp_path: Path) -> None:
    block = memoryview(bytes(1 << 26))
    writer = ShardWriter(tmp_path)
    with pytest.raises(DataError, match="at most 4,294,967,295"):
        writer.write([b"", b"", [block] * 64, b"", b"", b"", b""])
    assert writer.finish() == ()


def test_a_shard_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "shard.00000.mds").write_bytes(b"mine")
    writer = ShardWriter(tmp_path)
    writer.write(as_columns(made_row(0, media=b"")))
    with pytest.raises(StorageError, match=r"shard\.00000\.mds: cannot write [\d,]+ bytes: File exists"):
        writer.finish()
    assert (tmp_path / "shard.00000.mds").read_bytes() == b"mine"


def test_a_write_behind_that_fails_is_an_error_of_the_next_shard(tmp_path: Path) -> None:
    (tmp_path / "shard.00000.mds").write_bytes(b"mine")
    row = made_row(0, media=b"m" * 1500)
    with ShardWriter(tmp_path, size_limit=4096, behind=True) as writer:
        with pytest.raises(StorageError, match=r"shard\.00000\.mds: cannot write [\d,]+ bytes: File exists"):
            for _ in range(6):
                writer.write(as_columns(row))
        assert not (tmp_path / "shard.00001.mds").exists()


def test_a_write_behind_has_ended_when_the_writer_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = os.writev

    def write_slowly(descriptor: int, buffers: list[shard_file.Buffer]) -> int:
        time.sleep(0.2)
        return slow(descriptor, buffers)

    monkeypatch.setattr(os, "writev", write_slowly)
    with pytest.raises(KeyError), ShardWriter(tmp_path, size_limit=4096, behind=True) as writer:
        for _ in range(3):
            writer.write(as_columns(made_row(0, media=b"m" * 1500)))
        raise KeyError
    size = (tmp_path / "shard.00000.mds").stat().st_size
    assert size > 3000
    assert not any(thread.name.startswith("shards") for thread in threading.enumerate())


def test_what_is_larger_than_a_shard_is_not_left_to_the_thread(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, size_limit=4096, behind=True) as writer:
        media = bytearray(b"before")
        writer.write([b"", b"", memoryview(media), b"x" * 9000, b"", b"", b""])
        media[:] = b"after!"  # it is copied by now: memory need not hold two of them
        writer.finish()
    assert b"before" in (tmp_path / "shard.00000.mds").read_bytes()


def test_a_write_that_fails_midway_is_a_storage_error_that_names_file_and_bytes(tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys; from pathlib import Path; from vlm_prep.mds_shard import ShardWriter;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000));"
        "w = ShardWriter(Path(sys.argv[1])); w.write([b'x' * 5000] + [b''] * 6);\n"
        "from vlm_catalogs.errors import StorageError\n"
        "try: w.finish()\n"
        "except StorageError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "shard.00000.mds: cannot write 5,3" in done.stdout


def test_partial_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_at_most_1000(descriptor: int, buffers: list[shard_file.Buffer]) -> int:
        return os.write(descriptor, b"".join(buffers)[:1000])

    rows = [made_row(number, media=os.urandom(1700)) for number in range(3)]
    whole = write_directly(tmp_path / "whole", rows, size_limit=1 << 20)

    def write_at_most_a_block(descriptor: int, content: memoryview, offset: int) -> int:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.write(descriptor, content[:4096])

    monkeypatch.setattr(os, "writev", write_at_most_1000)
    monkeypatch.setattr(os, "pwrite", write_at_most_a_block)
    assert write_directly(tmp_path / "pieces", rows, size_limit=1 << 20) == whole
    assert file_hash(tmp_path / "pieces/shard.00000.mds") == whole[0].xxh3_128


@pytest.mark.parametrize("file_system", ["ramfs", "tmpfs"])
def test_of_file_systems_with_and_without_direct_writes(tmp_path: Path, file_system: str) -> None:
    rows = [made_row(number, media=os.urandom(30_000)) for number in range(9)]
    expected = write_directly(tmp_path / "expected", rows, size_limit=1 << 17)
    with mounted(tmp_path / "disk", file_system) as disk:
        assert write_directly(disk / "shards", rows, size_limit=1 << 17, behind=True) == expected
        assert [file_hash(disk / "shards" / shard.name) for shard in expected] == [one.xxh3_128 for one in expected]


def test_a_disk_that_fills_up_in_mid_shard_is_a_storage_error(tmp_path: Path) -> None:
    rows = [made_row(number, media=os.urandom(30_000)) for number in range(9)]
    with mounted(tmp_path / "disk", "tmpfs", "size=200k") as disk:
        for behind in (False, True):
            with pytest.raises(StorageError, match=r"shard\.00001\.mds: cannot write [\d,]+ bytes: No space left"):
                write_directly(disk / f"shards {behind}", rows, size_limit=1 << 17, behind=behind)
            shutil.rmtree(disk / f"shards {behind}")


def test_a_run_is_written_as_its_samples_one_by_one(tmp_path: Path) -> None:
    rows = [as_columns(made_row(number, media=os.urandom(300 + 7 * number))) for number in range(50)]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one_by_one, in_runs = (ShardWriter(tmp_path / name, size_limit=4096) for name in "ab")
    expected = [one_by_one.write(row) for row in rows]
    positions = [in_runs.write(rows[0])]
    positions += in_runs.write_run(list(zip(*rows[1:40], strict=True)))  # type: ignore[arg-type]
    positions += [in_runs.write(row) for row in rows[40:]]
    assert positions == expected
    assert in_runs.finish() == one_by_one.finish()


def test_the_writer_imports_neither_streaming_nor_torch() -> None:
    script = "import sys, vlm_prep.mds_shard; sys.exit(bool({'streaming', 'torch', 'numpy'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", script], check=True)
