"""Inputs as large as asked, made in no time (most of them are holes in sparse files), and the memory to convert them.

python tests/large_inputs.py FORM FOLDER        converts what ``write`` has made, in this process alone
"""

import base64
import json
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

JPEG_HEADER = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffc0001108001e002803011100021101031101ffda000c03010002110311003f00"
)
"""Of a picture of 40 x 30; whatever follows, a header reader is content."""
ENTRY = "part_000000/000000.tar"
ROW_BYTES = 40_000


def write(form: str, folder: Path, *, num_bytes: int, member_bytes: int) -> None:
    """Write an input of ``num_bytes`` in members (samples) of ``member_bytes``, as ``form`` wants it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    FORMS[form](folder, max(1, num_bytes // member_bytes), member_bytes)


def write_i4(folder: Path, number: int, size: int, *, pickled: bool = False) -> None:
    """Tars of texts and of pictures, bare or in a pickled dict each."""
    before, after, suffix = (*pickled_dict(size), "pkl") if pickled else (b"", b"", "jpg")
    (folder / "texts" / ENTRY).parent.mkdir(parents=True)
    (folder / "media" / ENTRY).parent.mkdir(parents=True)
    with (folder / "texts" / ENTRY).open("wb") as texts, (folder / "media" / ENTRY).open("wb") as media:
        for sample in range(number):
            text = json.dumps(conversation({"type": "image", "image": "image_0"})).encode()
            add_member(texts, f"{sample}.json", text, b"", len(text))
            add_member(media, f"{sample}.{suffix}", before + JPEG_HEADER, after, len(before) + size + len(after))
    wdinfo = {"root": str(folder), "data_list": [ENTRY], "total_key_count": number}
    (folder / "wdinfo.json").write_text(json.dumps(wdinfo))


def write_i4_pickles(folder: Path, number: int, size: int) -> None:
    """The same with pickles."""
    write_i4(folder, number, size, pickled=True)


def pickled_dict(size: int) -> tuple[bytes, bytes]:
    """What stands before and after a picture of ``size`` bytes in the pickle of ``{"image_0": picture}``."""
    return b"\x80\x04}\x8c\x07image_0\x8e" + size.to_bytes(8, "little"), b"s."


def write_webdataset(folder: Path, number: int, size: int) -> None:
    """A tar with a text and a picture for each sample."""
    with (folder / "0.tar").open("wb") as tar:
        for sample in range(number):
            item = {"type": "image", "image": "picture", "wds_field": "jpg"}
            text = json.dumps({"messages": conversation(item)}).encode()
            add_member(tar, f"{sample}.json", text, b"", len(text))
            add_member(tar, f"{sample}.jpg", JPEG_HEADER, b"", size)


def add_member(tar: IO[bytes], name: str, begin: bytes, end: bytes, size: int) -> None:
    """A member of ``size`` bytes that begins and ends as told, with a hole between."""
    entry = tarfile.TarInfo(name)
    entry.size = size
    tar.write(entry.tobuf(tarfile.GNU_FORMAT))
    at = tar.tell()
    tar.write(begin)
    tar.seek(at + size - len(end))
    tar.write(end)
    tar.truncate(at + size + -size % 512)
    tar.seek(0, 2)


def write_jsonl(folder: Path, number: int, size: int) -> None:
    """Lines of ``size`` bytes of text."""
    with (folder / "rows.jsonl").open("wb") as file:
        file.writelines(row + b"\n" for row in long_rows(number, size))


def write_data_urls(folder: Path, number: int, size: int) -> None:
    """Lines with a picture of ``size`` bytes in base64."""
    url = "data:image/jpeg;base64," + base64.b64encode(JPEG_HEADER + bytes(3 * (size // 4) - len(JPEG_HEADER))).decode()
    with (folder / "rows.jsonl").open("w") as file:
        for _ in range(number):
            json.dump({"messages": conversation({"type": "image", "image": url})}, file)
            file.write("\n")


def write_array(folder: Path, number: int, size: int) -> None:
    """One JSON array of such rows."""
    with (folder / "rows.json").open("wb") as file:
        for sample, row in enumerate(long_rows(number, size)):
            file.write((b"," if sample else b"[") + row)
        file.write(b"]")


def long_rows(number: int, size: int) -> Iterator[bytes]:
    """Records of ``size`` bytes."""
    words = ("How it is, with words. " * (size // 20))[: size - 200]
    for sample in range(number):
        yield json.dumps({"messages": [*conversation(), {"role": "user", "content": f"{sample} {words}"}]}).encode()


def write_parquet(folder: Path, number: int, size: int) -> None:
    """One file of one row group, a picture in each row."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("messages", pa.string()), ("images", pa.list_(image))])
    text = json.dumps(conversation({"type": "image"}))
    with pq.ParquetWriter(folder / "rows.parquet", schema, compression="none", use_dictionary=False) as writer:
        row = {"messages": text, "images": [{"bytes": JPEG_HEADER + bytes(size - len(JPEG_HEADER)), "path": None}]}
        at_once = max(1, (1 << 24) // size)
        batch = pa.RecordBatch.from_pylist([row] * at_once, schema=schema)
        for _ in range(0, number, at_once):
            writer.write_batch(batch, row_group_size=1 << 30)


def conversation(*items: dict[str, str]) -> list[dict[str, object]]:
    """A question about media, and an answer."""
    question = {"role": "user", "content": [*items, {"type": "text", "text": "What is it?"}]}
    return [question, {"role": "assistant", "content": "A thing."}]


FORMS: dict[str, Callable[[Path, int, int], None]] = {
    "i4": write_i4,
    "i4 pickles": write_i4_pickles,
    "webdataset": write_webdataset,
    "jsonl": write_jsonl,
    "jsonl data URLs": write_data_urls,
    "llava": write_array,
    "parquet": write_parquet,
}


def peak_memory(form: str, folder: Path) -> int:
    """The most anonymous memory, in bytes, of a fresh process that converts the input; sampled every five ms."""
    command = [sys.executable, "-m", "tests.large_inputs", form, str(folder.absolute())]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[1])
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous_memory(process.pid))
        time.sleep(0.005)
    assert process.returncode == 0, f"{form}: exit code {process.returncode}"
    return peak


def anonymous_memory(pid: int) -> int:
    """RssAnon of a process in bytes; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon")), 0)


def convert(form: str, folder: Path) -> None:
    """Plan and convert the whole input; what is converted is thrown away at once, part by part."""
    from tests.staged_parts import stage_alone

    from vlm_catalogs.source import FileSource, I4Source
    from vlm_prep.i4_inputs import plan_i4
    from vlm_prep.raw_sample import Limits
    from vlm_prep.readers import plan_files

    if form.startswith("i4"):
        wdinfo = {"train": str(folder / "wdinfo.json")}
        source = I4Source(name="large", weight=1.0, wdinfo=wdinfo, bucket="", local_root=None, origin="test")
        parts, file_format = plan_i4(source, allow_missing_tars=False)[0], "i4"
    else:
        source = FileSource(name="large", weight=1.0, path=str(folder), format=None, origin="test")
        file_format = form.split()[0]
        parts = plan_files(source, file_format)
    out = folder / "out"
    out.mkdir()
    for part in parts:
        limits = Limits(max_sample_bytes=1 << 28)
        staged = stage_alone(source, file_format, part, limits=limits, folder=out)
        assert json.loads((staged / "part.json").read_text())["num_rejected"] == 0
        shutil.rmtree(staged)


if __name__ == "__main__":
    convert(sys.argv[1], Path(sys.argv[2]))
