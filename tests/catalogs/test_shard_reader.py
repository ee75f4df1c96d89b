import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_catalogs import json_text
from vlm_catalogs.errors import DataError, StorageError
from vlm_catalogs.hashing import content_hash
from vlm_catalogs.sample import MDS_COLUMNS, MediaFacts, Sample
from vlm_catalogs.shard_reader import ShardReader
from vlm_prep.mds_shard import COLUMN_NAMES, ShardWriter


def made_sample(number: int) -> Sample:
    media = bytes([number]) * (number + 3) + b"video"
    image = MediaFacts(
        name="image_0", kind="image", format="png", offset=0, size=number + 3,
        xxh3_128=content_hash(media[: number + 3]), width=4, height=2,
    )  # fmt: skip
    video = MediaFacts(
        name="video_0", kind="video", format="mp4", offset=number + 3, size=5,
        xxh3_128=content_hash(b"video"), width=4, height=2, duration=1.5, fps=24.0, frames=36,
    )  # fmt: skip
    return Sample(
        sample_id=f"part/ü {number}",
        dataset="demo",
        messages=[{"role": "user", "content": [{"type": "image", "image": "image_0"}]}],
        alternatives=[[{"role": "assistant", "content": []}]] * (number % 3),
        media=media,
        media_table=(image, video),
        meta={"number": number},
    )


def as_columns(sample: Sample) -> list[bytes]:
    columns: dict[str, Any] = {name: getattr(sample, name) for name in COLUMN_NAMES}
    columns["media_table"] = [facts.as_row() for facts in sample.media_table]
    return [
        (value if MDS_COLUMNS[name] == "str" else json_text.dumps(value)).encode() if name != "media" else value
        for name, value in columns.items()
    ]


SAMPLES = [made_sample(number) for number in range(4)]


def write_shard(folder: Path, samples: list[Sample]) -> tuple[Path, str]:
    folder.mkdir(exist_ok=True)
    writer = ShardWriter(folder)
    for sample in samples:
        writer.write(as_columns(sample))
    (closed,) = writer.finish()
    return folder / closed.name, closed.xxh3_128


def test_samples_read_back_as_they_were_written(tmp_path: Path) -> None:
    path, _ = write_shard(tmp_path, SAMPLES)
    with ShardReader(path) as reader:
        assert reader.num_samples == len(SAMPLES)
        assert [reader.read(index) for index in (2, 0, 3, 1)] == [SAMPLES[index] for index in (2, 0, 3, 1)]


def test_a_shard_that_streaming_wrote_reads_too(tmp_path: Path) -> None:
    from streaming import MDSWriter

    with MDSWriter(columns=dict(MDS_COLUMNS), out=str(tmp_path / "s")) as writer:
        writer.write(dict(zip(COLUMN_NAMES, as_columns(SAMPLES[1]), strict=True)))
    with ShardReader(tmp_path / "s/shard.00000.mds") as reader:
        assert reader.read(0) == SAMPLES[1]


def test_media_are_slices_of_the_map_and_outlive_the_reader(tmp_path: Path) -> None:
    path, _ = write_shard(tmp_path, SAMPLES)
    with ShardReader(path) as reader:
        sample = reader.read(3)
        assert isinstance(sample.media, memoryview)
        assert type(sample.media.obj).__name__ == "mmap"
    path.unlink()
    assert bytes(sample.medium("video_0")) == b"video"
    assert bytes(sample.medium("image_0")) == b"\3" * 6


def test_the_recorded_hash_is_compared(tmp_path: Path) -> None:
    path, xxh3_128 = write_shard(tmp_path, SAMPLES)
    with ShardReader(path) as reader:
        reader.verify(xxh3_128)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with ShardReader(path) as reader, pytest.raises(DataError, match=rf"{path.name}: content hash [0-9a-f]{{32}}, but"):
        reader.verify(xxh3_128)


@pytest.mark.parametrize("index", [-1, 4, 1 << 40])
def test_an_index_that_is_not_there_is_named(tmp_path: Path, index: int) -> None:
    path, _ = write_shard(tmp_path, SAMPLES)
    with ShardReader(path) as reader, pytest.raises(DataError, match=rf"mds: sample {index}: there are only 4"):
        reader.read(index)


def test_every_truncation_is_noticed_when_the_shard_is_opened(tmp_path: Path) -> None:
    path, _ = write_shard(tmp_path, SAMPLES)
    content = path.read_bytes()
    for end in range(len(content)):
        path.write_bytes(content[:end])
        with pytest.raises(DataError, match=r"shard\.00000\.mds: damaged shard: "):
            ShardReader(path)
    path.write_bytes(content + b"x")
    with pytest.raises(DataError, match="the file at byte"):
        ShardReader(path)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(min_value=0), st.integers(1, 255)), min_size=1, max_size=5))
def test_flipped_bytes_give_a_data_error_or_a_sample_but_never_a_crash(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]]
) -> None:
    path, xxh3_128 = write_shard(tmp_path_factory.mktemp("shard"), SAMPLES)
    content = bytearray(path.read_bytes())
    for position, change in flips:
        content[position % len(content)] ^= change
    path.write_bytes(content)
    try:
        with ShardReader(path) as reader:
            for index in range(reader.num_samples):
                sample = reader.read(index)
                assert all(len(sample.medium(facts.name)) == facts.size for facts in sample.media_table)
    except DataError as error:
        assert str(path) in str(error)
    if content_hash(bytes(content)) != xxh3_128:
        with pytest.raises(DataError), ShardReader(path) as reader:
            reader.verify(xxh3_128)


@pytest.mark.parametrize(
    ("column", "payload", "problem"),
    [
        ("messages", b"{}", "column messages: expected a list, got dict"),
        ("messages", b"[1", "column messages: broken JSON"),
        ("meta", b'["\\ud800"]', "column meta: lone surrogate"),
        ("sample_id", b"\xff", "utf-8"),
        ("media_table", b'[{"name": "image_0"}]', "missing"),
        ("media_table", b'[{"nom": 1}]', "unexpected keyword"),
        ("media", b"short", "medium image_0 ends outside of the 5 bytes|medium video_0 ends outside of the 5 bytes"),
    ],
)
def test_a_malformed_column_names_file_and_index(tmp_path: Path, column: str, payload: bytes, problem: str) -> None:
    columns = dict(zip(COLUMN_NAMES, as_columns(SAMPLES[1]), strict=True)) | {column: payload}
    writer = ShardWriter(tmp_path)
    writer.write(as_columns(SAMPLES[0]))
    writer.write(list(columns.values()))
    writer.finish()
    with ShardReader(tmp_path / "shard.00000.mds") as reader:
        assert reader.read(0) == SAMPLES[0]
        with pytest.raises(DataError, match=rf"shard\.00000\.mds: sample 1: damaged: .*({problem})"):
            reader.read(1)


def test_a_shard_of_other_columns_is_refused(tmp_path: Path) -> None:
    from streaming import MDSWriter

    with MDSWriter(columns={"x": "bytes"}, out=str(tmp_path / "s")) as writer:
        writer.write({"x": b"1"})
    with pytest.raises(DataError, match="expected the columns"):
        ShardReader(tmp_path / "s/shard.00000.mds")


def test_a_huge_count_is_refused_without_reading_on(tmp_path: Path) -> None:
    path = tmp_path / "shard.00000.mds"
    path.write_bytes(struct.pack("<I", 0xFFFFFFFF) + bytes(100))
    with pytest.raises(DataError, match="the header of 4,294,967,295 samples needs"):
        ShardReader(path)


def test_a_missing_shard_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"shard\.00007\.mds: cannot be opened"):
        ShardReader(tmp_path / "shard.00007.mds")


def test_the_reader_imports_neither_torch_nor_streaming() -> None:
    script = "import sys, vlm_catalogs.shard_reader; sys.exit(bool({'streaming', 'torch', 'numpy'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", script], check=True)


def with_number(content: bytes, position: int, number: int) -> bytes:
    return content[:position] + struct.pack("<I", number) + content[position + 4 :]


@pytest.mark.parametrize(("offset", "number"), [(0, 4), (1, 0xFFFFFFF0), (2, 30)])
def test_offsets_that_do_not_ascend_are_noticed_when_the_shard_is_opened(
    tmp_path: Path, offset: int, number: int
) -> None:
    path, _ = write_shard(tmp_path, SAMPLES)
    path.write_bytes(with_number(path.read_bytes(), 4 + 4 * offset, number))
    with pytest.raises(DataError, match="damaged shard: the offsets of its samples do not ascend"):
        ShardReader(path)
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_lengths_that_do_not_fill_a_sample_are_named(tmp_path: Path) -> None:
    path, _ = write_shard(tmp_path, SAMPLES)
    content = path.read_bytes()
    begin, end = struct.unpack_from("<2I", content, 8)
    path.write_bytes(with_number(content, begin + 8, 1 << 31))
    with ShardReader(path) as reader, pytest.raises(DataError, match=r"sample 1: damaged: its columns take 2,147,"):
        reader.read(1)
    path.write_bytes(with_number(content, 12, begin + 5))
    with ShardReader(path) as reader, pytest.raises(DataError, match=r"sample 1: damaged: 5 bytes"):
        reader.read(1)
    assert end > begin + 5
