"""What lies beside the parts of a converted source: its versions, and the MDS view that plain ``streaming`` reads."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

from vlm_catalogs import json_text
from vlm_catalogs.errors import DataError, StorageError
from vlm_catalogs.hashing import joined_hash
from vlm_catalogs.layout import COMPACTED, PartRecord, part_folder, read_part
from vlm_prep.source_files import mds_view
from vlm_prep.source_format import SUFFIXES
from vlm_prep.verify.compactions import check_compactions
from vlm_prep.verify.findings import DAMAGED, EXTRA, MISSING, STALE_INDEX, UNREADABLE, WRONG_COUNT, Finding

FORMATS = {"i4", *SUFFIXES}
KNOWN = {"parts", "sources", "index.json", COMPACTED}


def check_layout(layout: Path, verified: AbstractSet[Path]) -> Iterator[Finding]:
    """What is wrong beside the parts of ``shards/<dataset>/<layout>``, of which ``verified`` have been looked at.

    Raises StorageError when the storage fails.
    """
    for path in sorted(layout.iterdir()):
        if path.name not in KNOWN:
            yield Finding(problem=EXTRA, path=str(path), detail="no part of a converted source")
    versions = []
    paths = sorted((layout / "sources").glob("*.json"))
    for path in paths:
        parts, findings = _read_version(layout, path)
        yield from findings
        if not findings:
            versions.append(parts)
    if not paths:
        yield Finding(problem=MISSING, path=str(layout / "sources"), detail="no version of this source")
    yield from _check_view(layout, versions)
    yield from check_compactions(layout, verified)


def _read_version(layout: Path, path: Path) -> tuple[list[str], list[Finding]]:
    """The parts of one version in order, and what is wrong with it."""
    try:
        text = _text(path)
        version = json_text.loads(text)
        parts, dataset, file_format = [str(name) for name in version["parts"]], version["dataset"], version["format"]
    except (ValueError, KeyError, TypeError) as error:
        return [], [Finding(problem=UNREADABLE, path=str(path), detail=f"no version of a source: {error!r}")]
    findings = []
    if joined_hash([layout.resolve().name, *parts]) != path.stem:
        findings.append(Finding(problem=DAMAGED, path=str(path), detail="its name is not the hash of its parts"))
    if file_format not in FORMATS or json_text.dumps_indented(version).encode() != text:
        findings.append(
            Finding(problem=DAMAGED, path=str(path), detail=f"not as it is written; format {file_format!r}")
        )
    if dataset != layout.resolve().parent.name:
        detail = f"a version of {dataset}, it lies under {layout.resolve().parent.name}"
        findings.append(Finding(problem=DAMAGED, path=str(path), detail=detail))
    if len(set(parts)) != len(parts):
        findings.append(Finding(problem=WRONG_COUNT, path=str(path), detail="it lists a part more than once"))
    for name in parts:
        if not part_folder(layout, name).is_dir():
            detail = f"{path.name} lists it"
            findings.append(Finding(problem=MISSING, path=str(part_folder(layout, name)), detail=detail))
    return parts, findings


def _check_view(layout: Path, versions: list[list[str]]) -> Iterator[Finding]:
    """index.json must be the view of one of the versions, to the letter."""
    path = layout / "index.json"
    views = [mds_view(records) for parts in versions if (records := _records(layout, parts)) is not None]
    if not path.is_file():
        if views and all(view["shards"] for view in views):
            yield Finding(problem=MISSING, path=str(path), detail="the view of this source for plain streaming")
    elif views and _text(path) not in [json_text.dumps(view).encode() for view in views]:
        detail = "it is not the view of any version of this source; vlm-prep build-mix writes it anew"
        yield Finding(problem=STALE_INDEX, path=str(path), detail=detail)


def _records(layout: Path, parts: list[str]) -> list[PartRecord] | None:
    """The records of a version's parts; None when one cannot be read, which is a finding of that part."""
    try:
        return [read_part(part_folder(layout, name)) for name in parts]
    except DataError:
        return None


def _text(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror}") from error
