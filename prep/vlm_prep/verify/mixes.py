"""One mix version: its manifest against itself, its selection, and what it pins of its sources."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from vlm_catalogs import json_text
from vlm_catalogs.manifest import Manifest, MixDataset, PinnedPart
from vlm_catalogs.mix_place import layout_folder, pinned_parts
from vlm_catalogs.object_copies import ObjectCopies
from vlm_catalogs.tables import SELECTION
from vlm_prep.mix import fingerprint
from vlm_prep.sql import read_sql
from vlm_prep.verify.findings import (
    DAMAGED,
    MISSING,
    STALE_INDEX,
    SWAPPED,
    UNREADABLE,
    WRONG_COUNT,
    Finding,
    first_of,
)
from vlm_prep.verify.stored_files import check_pinned, check_schema, first_line


def check_manifest(mix: Path, manifest: Manifest, copies: ObjectCopies) -> Iterator[Finding]:
    """Does the manifest add up, and is it what its fingerprint says?"""
    path = str(mix / "manifest.json")
    if fingerprint(manifest) != manifest.fingerprint:
        yield Finding(problem=DAMAGED, path=path, detail="its content is not what its fingerprint says")
    if manifest.fingerprint != mix.resolve().name:
        yield Finding(problem=SWAPPED, path=path, detail=f"this is the version {manifest.fingerprint}")
    num_draws = sum(dataset.num_draws for dataset in manifest.datasets)
    if num_draws != manifest.epoch_samples:
        detail = f"{num_draws:,} draws, epoch_samples is {manifest.epoch_samples:,}"
        yield Finding(problem=WRONG_COUNT, path=path, detail=detail)
    for dataset in manifest.datasets:
        pinned = sum(part.num_samples for part in dataset.parts)
        if pinned != dataset.num_converted:
            detail = f"{dataset.name}: {dataset.num_converted:,} converted, its parts have {pinned:,}"
            yield Finding(problem=WRONG_COUNT, path=path, detail=detail)
        yield from _check_source(layout_folder(mix, dataset, copies), dataset)


def _check_source(layout: Path, dataset: MixDataset) -> Iterator[Finding]:
    """The version of the source that the mix was built from lists the parts that the mix pins."""
    path = layout / "sources" / f"{dataset.source_fingerprint}.json"
    if not path.is_file():
        yield Finding(problem=MISSING, path=str(path), detail=f"the mix was built from this version of {dataset.name}")
        return
    try:
        parts = json_text.loads(path.read_bytes())["parts"]
    except (ValueError, KeyError, TypeError) as error:
        yield Finding(problem=UNREADABLE, path=str(path), detail=f"no version of a source: {error!r}")
        return
    if parts != [part.name for part in dataset.parts]:
        detail = f"its parts are not those that the mix pins of {dataset.name}"
        yield Finding(problem=STALE_INDEX, path=str(path), detail=detail)


def check_selection(mix: Path, manifest: Manifest, copies: ObjectCopies) -> list[Finding]:
    """The selection against its hash, its schema, its counts, and the kept samples of the pinned parts."""
    path = mix / "selection.parquet"
    findings = [
        *check_pinned(path, manifest.selection_xxh3_128, problem=DAMAGED),
        *(schema := list(check_schema(path, SELECTION))),
    ]
    if schema or not path.is_file():
        return findings
    try:
        findings += _check_counts(path, manifest)
        findings += first_of(_check_rows(path, pinned_parts(mix, manifest, copies)))
    except (duckdb.Error, OSError) as error:
        findings.append(Finding(problem=UNREADABLE, path=str(path), detail=first_line(error)))
    return findings


def _check_counts(path: Path, manifest: Manifest) -> Iterator[Finding]:
    num_rows = pq.read_metadata(path).num_rows
    num_converted = sum(dataset.num_converted for dataset in manifest.datasets)
    if num_rows != num_converted:
        detail = f"{num_rows:,} rows, the manifest says {num_converted:,} converted samples"
        yield Finding(problem=WRONG_COUNT, path=str(path), detail=detail)
    with duckdb.connect() as index:
        train = "count(*) filter (where selected and split = 'train')"
        question = f"select dataset, {train} from read_parquet($path) group by dataset"
        selected = dict(index.execute(question, {"path": str(path)}).fetchall())
    for dataset in manifest.datasets:
        found = selected.get(dataset.name, 0)
        if found != dataset.num_selected:
            detail = f"{dataset.name}: {found:,} selected, the manifest says {dataset.num_selected:,}"
            yield Finding(problem=WRONG_COUNT, path=str(path), detail=detail)


def _check_rows(path: Path, parts: Sequence[tuple[Path, PinnedPart]]) -> Iterator[Finding]:
    """Each kept sample of the pinned parts has one row that says where it stands, and no other row is there."""
    tables = [folder / "samples.parquet" for folder, _ in parts]
    samples = [str(table) for table in tables if table.is_file()]
    if len(samples) < len(tables):
        return  # that is a finding of those parts
    with duckdb.connect() as index:
        question = read_sql("selection_against_index.sql")
        rows = index.execute(question, {"selection": str(path), "samples": samples}).fetchall()
    for dataset, sample_id, problem in rows:
        yield Finding(problem=STALE_INDEX, path=str(path), detail=f"{dataset}/{sample_id}: {problem}")
