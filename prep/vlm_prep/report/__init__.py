"""The story of a report: what a mix is, in numbers and samples, as one HTML page that needs nothing else."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb

from vlm_catalogs.console import note
from vlm_catalogs.errors import ConfigError, DataError
from vlm_catalogs.manifest import REPORT_FILE, Manifest
from vlm_catalogs.mix_place import copies_of
from vlm_catalogs.object_copies import ObjectCopies
from vlm_catalogs.page import page_html
from vlm_prep.index_files import IndexFiles, find_index
from vlm_prep.report.findings import named_samples, read_findings
from vlm_prep.report.numbers import dataset_rows, distributions, door_rows, prepare_numbers
from vlm_prep.report.samples import Chosen, choose_samples
from vlm_prep.report.thumbnails import make_thumbnails, plan_pictures
from vlm_prep.select import open_index
from vlm_prep.sql_views import create_views
from vlm_prep.staging import STAGING
from vlm_prep.stores import store_at


@dataclass(frozen=True, slots=True, kw_only=True)
class PageLimits:
    """How much of a mix stands on its page."""

    num_samples: int = 2_000
    num_thumbnails: int = 300
    text_bytes: int = 8 << 20
    """Of all samples together, before thumbnails."""
    thumbnail_bytes: int = 6 << 20

    def of_bytes(self, total: int) -> "PageLimits":
        """The same numbers in ``total`` bytes: texts get up to four sevenths, thumbnails the rest."""
        return replace(self, text_bytes=4 * total // 7, thumbnail_bytes=3 * total // 7)


def write_report(
    path: str,
    *,
    target: Path | None = None,
    limits: PageLimits | None = None,
    copies: ObjectCopies | None = None,
) -> Path:
    """The page of a mix, at ``target`` or as ``report.html`` in the folder of the version.

    Raises ConfigError for a path that is no mix or a target that exists, DataError for a mix that is not whole,
    StorageError.
    """
    files = find_index(path, copies=copies)
    if files.mix is None:
        raise ConfigError(f"{path}: converted sources; name a mix, since a report is about a mix")
    if target is not None and target.exists():
        raise ConfigError(f"{target}: exists already; name another file or move it away")
    text = report_page(files, limits or PageLimits())
    where = files.mix / REPORT_FILE if target is None else target.absolute()
    root = files.mix.resolve().parent if target is None else where.parent
    store = store_at(root, files.copies)
    with store.staging() as staging:
        store.publish_text(text, where, staging=staging)
    if target is not None:
        with suppress(OSError):  # another command may be at work there
            (root / STAGING).rmdir()
    return where


def has_report(mix: Path, *, copies: ObjectCopies | None = None) -> bool:
    """Does a page stand beside the manifest of a mix version? Raises StorageError."""
    copies = copies or copies_of(None)
    page = mix / REPORT_FILE
    return page in copies.list(mix) if copies.has_place_for(mix) else page.is_file()


def report_page(files: IndexFiles, limits: PageLimits) -> str:
    """The HTML of the page; the same for the same mix, audit and limits."""
    assert files.mix is not None and files.manifest is not None
    findings = read_findings(files.mix)
    with _asked(files) as index:
        chosen = choose_samples(
            index,
            named_samples(findings),
            most=limits.num_samples,
            most_bytes=limits.text_bytes,
            seed=files.manifest.seed,
        )
        prepare_numbers(index)
        data = {
            "mix": _mix_facts(files.manifest),
            "datasets": dataset_rows(index, files.manifest),
            "doors": door_rows(index),
            "distributions": distributions(index),
            "findings": findings,
        }
    shown = _samples(files, chosen, limits)
    title = f"{files.manifest.name} · mix report"
    return page_html(title, {**data, **shown}, scripts=[_text("report.js")], styles=[_text("report.css")])


@contextmanager
def _asked(files: IndexFiles) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with the views of the mix. Raises DataError for files that cannot be read."""
    with tempfile.TemporaryDirectory(prefix="vlm-prep-report-") as scratch, open_index(Path(scratch)) as index:
        create_views(index, files)
        try:
            yield index
        except (duckdb.InvalidInputException, duckdb.IOException) as error:
            raise DataError(f"{error}\nvlm-prep verify says what is wrong with the files") from error


def _mix_facts(manifest: Manifest) -> dict[str, Any]:
    names = ("name", "fingerprint", "seed", "weight_unit", "epoch_samples", "model_max_length", "length_policy")
    encoding = {"family": manifest.encoding.family, "model_type": manifest.encoding.model_type}
    return {**{name: getattr(manifest, name) for name in names}, **encoding, "notes": list(manifest.notes)}


def _samples(files: IndexFiles, chosen: Chosen, limits: PageLimits) -> dict[str, Any]:
    """The chosen samples with their thumbnails, each row as a list in the order of ``sample_columns``."""
    folders = {(part.record.dataset, part.record.name): part.folder for part in files.parts}
    media = [len(row["media"]) for row in chosen.rows]
    planned = plan_pictures(folders, chosen.places, media, most=limits.num_thumbnails)
    thumbnails = make_thumbnails(planned, files.copies, most_bytes=limits.thumbnail_bytes)
    if thumbnails.num_unreadable:
        note(f"report: {thumbnails.num_unreadable:,} media have no thumbnail: too large, or not readable")
    for (sample, position), number in thumbnails.places.items():
        chosen.rows[sample]["media"][position]["thumbnail"] = number
    columns = list(chosen.rows[0]) if chosen.rows else []
    return {
        "sample_columns": columns,
        "samples": [list(row.values()) for row in chosen.rows],
        "num_samples": chosen.num_samples,
        "thumbnails": thumbnails.urls,
    }


def _text(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")
