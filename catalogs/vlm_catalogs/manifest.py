"""The mix manifest: what a mix is, by content. It pins parts by hash and is written last, so it marks a whole mix."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vlm_catalogs import json_text
from vlm_catalogs.errors import DataError
from vlm_catalogs.field_types import check_fields

FORMAT = "vlm-mix/manifest"
MANIFEST_FILE = "manifest.json"
SELECTION_FILE = "selection.parquet"
CURRENT_FILE = "current.json"
AUDIT_FILE = "audit.json"
REPORT_FILE = "report.html"
VERSION = 1
"""Raised when a reader of the version before would misread the file; newer manifests are refused, older are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedPart:
    """One part of a dataset as the mix was built from it."""

    name: str
    part_json_xxh3_128: str
    num_samples: int
    """Kept samples: those that stand in shards."""
    lengths: str
    """Path of the lengths file, relative to the part."""
    lengths_xxh3_128: str
    decoded: str | None = None
    """Path of the decoded facts, where the selection asked for them."""
    decoded_xxh3_128: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MixDataset:
    """One dataset of the mix: its share and where its parts are."""

    name: str
    format: str
    weight: float
    share: float
    """weight / sum of weights."""
    num_draws: int
    """Draws of one epoch (semantics B3): within one of share x epoch samples; by tokens about how many."""
    draw_tokens: int | None = None
    """Tokens of one epoch, where the weights are of tokens: the dataset draws until its total is nearest."""
    num_converted: int
    num_rejected: int
    num_selected: int
    """Samples to train on; those of the eval split are not among them."""
    shards: str
    """``shards/<dataset>/<layout>``, relative to the mix folder; s3://... where mix and shards lie apart."""
    source_fingerprint: str
    parts: tuple[PinnedPart, ...]
    of_parts: int | None = None
    """Parts of the source, where the mix is of some of them only (``convert = "needed"``): its population."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How conversations become tokens: what the lengths were measured with."""

    fingerprint: str
    family: str
    """``qwen3_vl`` | ``nemotron_vl``."""
    model_type: str
    settings: dict[str, Any]
    """The resolved settings that the fingerprint covers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A whole mix. Holds no clock, host, pid or absolute path: the same inputs give the same bytes."""

    name: str
    fingerprint: str
    seed: int
    weight_unit: str
    epoch_samples: int
    model_max_length: int
    length_policy: str
    encoding: Encoding
    selection_xxh3_128: str
    settings: dict[str, Any]
    """The parts of the TOML that decide the mix; ``vlm-train`` compares them with the TOML that it is given."""
    datasets: tuple[MixDataset, ...]
    notes: tuple[str, ...] = field(default=())


def manifest_text(manifest: Manifest) -> str:
    """The manifest as it stands on disk: indented JSON with a final newline."""
    return json_text.dumps_indented({"format": FORMAT, "version": VERSION, **manifest_fields(manifest)})


def manifest_fields(manifest: Manifest) -> dict[str, Any]:
    """The fields as they stand on disk; those that came later only where they say something."""
    fields = asdict(manifest)
    for dataset in fields["datasets"]:
        _leave_out_none(dataset, ("draw_tokens", "of_parts"))
        for part in dataset["parts"]:
            _leave_out_none(part, ("decoded", "decoded_xxh3_128"))
    return fields


def _leave_out_none(fields: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        if fields[name] is None:
            del fields[name]


def read_manifest(mix: Path) -> Manifest:
    """The manifest of a mix version folder. Raises DataError when it is missing, damaged or too new."""
    path = mix / MANIFEST_FILE
    if not path.is_file():
        raise DataError(f"{path}: no manifest here, so this is not a whole mix; run vlm-prep build-mix")
    try:
        fields = json_text.loads(path.read_bytes())
        if not isinstance(fields, dict):
            raise TypeError("expected a JSON object")
        if fields.pop("format", None) != FORMAT:
            raise DataError(f"{path}: not a mix manifest (format is not {FORMAT!r})")
        version = fields.pop("version", None)
        if not isinstance(version, int) or version > VERSION:
            raise DataError(f"{path}: manifest version {version}, this vlm-mix reads up to {VERSION}; use a newer one")
        return _manifest_from(fields)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: damaged manifest: {error}; move its folder away and run vlm-prep build-mix again"
        ) from error


def _manifest_from(fields: dict[str, Any]) -> Manifest:
    datasets = tuple(
        MixDataset(**{**dataset, "parts": tuple(PinnedPart(**part) for part in dataset["parts"])})
        for dataset in fields.pop("datasets")
    )
    encoding = Encoding(**fields.pop("encoding"))
    manifest = Manifest(datasets=datasets, encoding=encoding, notes=tuple(fields.pop("notes", ())), **fields)
    check_fields(manifest)
    return manifest


def current_mix(mix_root: Path) -> Path:
    """The version folder that ``mixes/<name>/current.json`` points at. Raises DataError when there is none."""
    path = mix_root / CURRENT_FILE
    if not path.is_file():
        raise DataError(f"{path}: no mix has been built here; run vlm-prep build-mix")
    try:
        return mix_root / str(json_text.loads(path.read_bytes())["fingerprint"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: damaged: {error}; run vlm-prep build-mix again") from error
