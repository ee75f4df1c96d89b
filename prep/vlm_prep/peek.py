"""A first look at a source: which form it has, and its first samples as conversion would store them. Writes nothing."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from vlm_catalogs import json_text
from vlm_catalogs.config.sections import MixSection
from vlm_catalogs.errors import ConfigError, DataError
from vlm_catalogs.source import FileSource, I4Source, Source
from vlm_prep.built_sample import BuiltSample, build_sample
from vlm_prep.content_ids import map_file
from vlm_prep.file_inputs import array_ranges, jsonl_ranges
from vlm_prep.i4_inputs import read_wdinfo
from vlm_prep.parts import PartInput, PlannedPart
from vlm_prep.raw_sample import Limits, RawSample, RejectedSample
from vlm_prep.readers import plan_files, read_part
from vlm_prep.source_format import find_files, resolve_format, source_root

ORIGIN = "the command line"
WDINFO = "wdinfo.json"

Seen = BuiltSample | RejectedSample


@dataclass(frozen=True, slots=True, kw_only=True)
class Peek:
    """What a source looks like."""

    form: str
    about: str
    """What it was seen by."""
    samples: tuple[Seen, ...]


def peek_source(path: str, *, num_samples: int, file_format: str = "auto", media_root: str | None = None) -> Peek:
    """The form and the first samples of a path. Raises ConfigError, DataError or StorageError."""
    if path.startswith("s3://"):
        raise ConfigError(f"{path}: looking into S3 is not built yet; look at a local copy")
    if not Path(path).exists():
        raise ConfigError(f"{path}: no such file or folder")
    wdinfo = _wdinfo_of(Path(path)) if file_format in ("auto", "i4") else None
    if file_format == "i4" and wdinfo is None:
        raise ConfigError(f"{path}: no {WDINFO} with root and data_list here")
    if wdinfo is not None:
        source, parts = _i4_source(wdinfo)
        tars = f"texts in {', '.join(source.text_keys)}; media in {', '.join(source.media_keys) or 'nothing'}"
        return Peek(form="i4", about=f"{wdinfo}: {tars}", samples=_samples(source, "i4", parts, num_samples))
    files = FileSource(
        name=Path(path).stem, weight=1.0, path=path, format=file_format, media_root=media_root, origin=ORIGIN
    )
    form = resolve_format(files)
    found = find_files(files, form)
    num_bytes = sum(file.stat().st_size for file in found)
    about = f"{len(found):,} files, {num_bytes / 1e6:,.1f} MB, the first is {found[0]}"
    return Peek(form=form, about=about, samples=_samples(files, form, _file_parts(files, form, found), num_samples))


def _samples(source: Source, form: str, parts: Iterator[PlannedPart], num_samples: int) -> tuple[Seen, ...]:
    limits = Limits.from_settings(MixSection())
    raws = (raw for part in parts for raw in read_part(source, form, part, limits))
    return tuple(build_sample(raw, limits) if isinstance(raw, RawSample) else raw for raw in islice(raws, num_samples))


def _file_parts(source: FileSource, form: str, files: list[Path]) -> Iterator[PlannedPart]:
    """The parts one by one; of JSON, only as much is read as is looked at."""
    if form not in ("jsonl", "llava"):
        yield from plan_files(source, form)
        return
    for file in files:
        name = file.relative_to(source_root(source)).as_posix()
        for begin, end, first_row in jsonl_ranges(file) if form == "jsonl" else array_ranges(file):
            piece = PartInput(
                name=name, path=str(file), bytes=end - begin, content_id="", begin=begin, first_row=first_row
            )
            yield PlannedPart(name="", inputs=(piece,))


def _wdinfo_of(path: Path) -> Path | None:
    """The wdinfo.json that a path is or holds; it is known by its fields."""
    file = path / WDINFO if path.is_dir() else path
    if file.suffix.lower() != ".json" or not file.is_file():
        return None
    content = map_file(file)
    if not bytes(content[:1024]).removeprefix(json_text.BYTE_ORDER_MARK).lstrip().startswith(b"{"):
        return None  # a LLaVA array may be of any size: it is not read for this
    try:
        fields = json_text.loads(content)
    except ValueError as error:
        raise DataError(f"{file}: {error}") from error
    return file if isinstance(fields, dict) and {"root", "data_list"} <= fields.keys() else None


def _i4_source(wdinfo: Path) -> tuple[I4Source, Iterator[PlannedPart]]:
    """The source of a wdinfo.json, with the data keys that its root has, and a part for each data_list entry."""
    source = I4Source(
        name=wdinfo.parent.name,
        weight=1.0,
        wdinfo={"train": str(wdinfo.resolve())},
        bucket="",
        local_root=str(_local_root(wdinfo)),
        origin=ORIGIN,
    )
    found = read_wdinfo(source)
    assert isinstance(found.root, Path)  # it has a local root
    root = found.root
    entry = found.data_list[0] if found.data_list else ""
    keys = sorted(folder.name for folder in root.iterdir() if (folder / entry).is_file())
    texts = tuple(key for key in keys if key.startswith("text"))
    media = tuple(key for key in keys if key not in texts)
    if not texts:
        raise DataError(f"{wdinfo}: no folder text*/ with {entry or 'a tar'} under {root}; its data keys: {keys}")
    source = replace(source, text_keys=texts, media_keys=media, text_only=not media)
    return source, (_i4_part(root, entry, texts + media) for entry in found.data_list)


def _i4_part(root: Path, entry: str, keys: tuple[str, ...]) -> PlannedPart:
    paths = {key: root / key / entry for key in keys}
    missing = [str(path) for path in paths.values() if not path.is_file()]
    if missing:
        raise DataError(f"{missing[0]}: named in data_list, but it is not there")
    return PlannedPart(
        name="",
        inputs=tuple(
            PartInput(
                name=f"{key}/{entry}", path=str(path), bytes=path.stat().st_size, content_id="", entry=entry, key=key
            )
            for key, path in paths.items()
        ),
    )


def _local_root(wdinfo: Path) -> Path:
    """The folder above a wdinfo.json that its ``root`` starts from: the mirror of the bucket."""
    fields = json_text.loads(wdinfo.read_bytes())
    root = str(fields["root"])
    key = root.removeprefix("s3://").partition("/")[2] if root.startswith("s3://") else root
    for folder in wdinfo.resolve().parents:
        if (folder / key.lstrip("/")).is_dir():
            return folder
    raise DataError(f"{wdinfo}: its root {root!r} is in no folder above it; is this a mirror of the whole bucket?")
