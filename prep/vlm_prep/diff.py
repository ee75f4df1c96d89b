"""What became other from one mix to another: settings, shares, which samples and why, lengths; no shard is opened."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb

from vlm_catalogs.errors import ConfigError, DataError
from vlm_catalogs.manifest import Manifest, MixDataset
from vlm_prep.index_files import IndexFiles, find_index
from vlm_prep.select import open_index
from vlm_prep.sql import read_sql
from vlm_prep.verify.targets import copies_for

NUM_EXAMPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherSetting:
    """A setting with two values; None where a mix does not have it."""

    name: str
    a: Any
    b: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetNumbers:
    """One dataset as one of the mixes has it."""

    weight: float
    asked: float
    realised: float
    num_draws: int
    num_converted: int
    num_rejected: int
    num_selected: int
    selected_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedDataset:
    """One dataset in both mixes; None where one of them does not have it."""

    name: str
    a: DatasetNumbers | None
    b: DatasetNumbers | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleChange:
    """Samples of one dataset to which the same happened."""

    dataset: str
    change: str
    """``entered`` | ``left`` | ``other_split`` | ``other_length`` | ``other_content``."""
    reason: str | None
    """Of those that entered why they were not in a, of those that left why they are not in b."""
    num_samples: int
    tokens_a: int | None
    """Of ``other_length``: their tokens in a."""
    tokens_b: int | None
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MixDiff:
    """All that differs between two mixes."""

    a: str
    b: str
    settings: tuple[OtherSetting, ...]
    datasets: tuple[ComparedDataset, ...]
    """Every dataset of either, also those that are the same."""
    changes: tuple[SampleChange, ...]

    @property
    def is_empty(self) -> bool:
        """Are the two the same but for their names?"""
        return not (self.settings or self.changes or any(one.a != one.b for one in self.datasets))

    def as_json(self) -> dict[str, Any]:
        """The same for machines."""
        return asdict(self)


def diff_mixes(path_a: str, path_b: str, *, credentials: str | None = None) -> MixDiff:
    """What is other in the second mix; ``credentials`` as in ``copies_for``.

    Raises ConfigError for a path that is no mix, DataError for one not whole.
    """
    a, b = _mix(path_a, credentials), _mix(path_b, credentials)
    with tempfile.TemporaryDirectory(prefix="vlm-prep-diff-") as scratch, open_index(Path(scratch)) as index:
        try:
            return MixDiff(
                a=_place(a),
                b=_place(b),
                settings=tuple(_other_settings(_settings(_manifest(a)), _settings(_manifest(b)))),
                datasets=tuple(_compare_datasets(_numbers(index, a), _numbers(index, b))),
                changes=tuple(_compare_samples(index, a, b)),
            )
        except (duckdb.InvalidInputException, duckdb.IOException) as error:
            raise DataError(f"{error}\nvlm-prep verify says what is wrong with the files") from error


def _mix(path: str, credentials: str | None) -> IndexFiles:
    files = find_index(path, copies=copies_for(path, credentials=credentials), compacted=False)
    if files.mix is None:
        raise ConfigError(f"{path}: converted sources; diff compares two mixes (or versions of one)")
    return files


def _place(files: IndexFiles) -> str:
    assert files.mix is not None
    return files.copies.shown(files.mix)


def _manifest(files: IndexFiles) -> Manifest:
    assert files.manifest is not None
    return files.manifest


def _settings(manifest: Manifest) -> dict[str, Any]:
    """Dotted name -> value: what the TOML set, and how conversations become tokens."""
    encoding = manifest.encoding
    return {
        **dict(_flat("", manifest.settings)),
        "epoch samples": manifest.epoch_samples,
        "encoding.family": encoding.family,
        "encoding.model_type": encoding.model_type,
        **dict(_flat("encoding", encoding.settings)),
    }


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Every leaf with its dotted name; lists of named things count as tables."""
    if isinstance(value, list) and value and all(isinstance(one, dict) and "name" in one for one in value):
        value = {one["name"]: {key: each for key, each in one.items() if key != "name"} for one in value}
    if isinstance(value, list) and value and all(_is_pair(one) for one in value):
        value = dict(value)
    if not isinstance(value, dict):
        yield name, value
        return
    for key, each in value.items():
        yield from _flat(f"{name}.{key}" if name else str(key), each)


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def _other_settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[OtherSetting]:
    for name in {**a, **b}:
        if a.get(name) != b.get(name):
            yield OtherSetting(name=name, a=a.get(name), b=b.get(name))


def _numbers(index: duckdb.DuckDBPyConnection, files: IndexFiles) -> dict[str, DatasetNumbers]:
    tokens = dict(index.execute(read_sql("selected_tokens.sql"), {"selection": _selection(files)}).fetchall())
    manifest = _manifest(files)
    return {one.name: _dataset_numbers(one, manifest, tokens.get(one.name, 0)) for one in manifest.datasets}


def _dataset_numbers(dataset: MixDataset, manifest: Manifest, tokens: int) -> DatasetNumbers:
    return DatasetNumbers(
        weight=dataset.weight,
        asked=dataset.share,
        realised=dataset.num_draws / manifest.epoch_samples,
        num_draws=dataset.num_draws,
        num_converted=dataset.num_converted,
        num_rejected=dataset.num_rejected,
        num_selected=dataset.num_selected,
        selected_tokens=tokens,
    )


def _compare_datasets(a: Mapping[str, DatasetNumbers], b: Mapping[str, DatasetNumbers]) -> Iterator[ComparedDataset]:
    for name in sorted({**a, **b}):
        yield ComparedDataset(name=name, a=a.get(name), b=b.get(name))


def _compare_samples(index: duckdb.DuckDBPyConnection, a: IndexFiles, b: IndexFiles) -> Iterator[SampleChange]:
    for side, files in (("a", a), ("b", b)):
        _create_table(index, f"rejected_{side}", "rejected_samples.sql", samples=_samples(files))
    pinned_a, pinned_b = _pinned(a), _pinned(b)
    only = {"samples_a": _samples(a, without=pinned_b), "samples_b": _samples(b, without=pinned_a)}
    if all(only.values()):
        _create_table(index, "other_content", "other_content.sql", **only)
    else:
        index.execute("create table other_content (sample_key ubigint, has_other_text bool, has_other_media bool)")
    index.execute(read_sql("compared_selections.sql"), {"selection_a": _selection(a), "selection_b": _selection(b)})
    names = {side: {one.name for one in _manifest(files).datasets} for side, files in (("a", a), ("b", b))}
    for row in index.execute(read_sql("changed_samples.sql"), {"most": NUM_EXAMPLES}).fetchall():
        dataset, change, reason, *numbers, examples = row
        away = {"entered": "a", "left": "b"}.get(change)
        if away is not None and dataset not in names[away]:
            reason = "dataset_not_in_mix"
        yield SampleChange(
            dataset=dataset,
            change=change,
            reason=reason,
            **dict(zip(("num_samples", "tokens_a", "tokens_b"), numbers, strict=True)),
            examples=tuple(examples),
        )


def _create_table(index: duckdb.DuckDBPyConnection, name: str, question: str, **files: Sequence[str]) -> None:
    index.execute(f"create table {name} as {read_sql(question)}", files)


def _pinned(files: IndexFiles) -> set[tuple[str, str, str]]:
    """What the mix pins of the index: a part of this name and content is the same wherever it lies."""
    return {(one.name, part.name, part.part_json_xxh3_128) for one in _manifest(files).datasets for part in one.parts}


def _samples(files: IndexFiles, *, without: AbstractSet[tuple[str, str, str]] = frozenset()) -> list[str]:
    """The samples tables of its parts, but for those that ``without`` pins as well."""
    left_out = {(dataset, part) for dataset, part, _ in without & _pinned(files)}
    kept = [part for part in files.parts if (part.record.dataset, part.record.name) not in left_out]
    return [str(part.table("samples")) for part in kept]


def _selection(files: IndexFiles) -> str:
    assert files.mix is not None
    return str(files.mix / "selection.parquet")
