"""Which datasets does a TOML name, and with what weights? Everything that a mix is made of, before any data is read."""

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from vlm_catalogs.config.sections import Config
from vlm_catalogs.errors import ConfigError
from vlm_catalogs.held_out_sources import held_out_sources
from vlm_catalogs.i4_catalog import I4Datasets, read_i4_datasets
from vlm_catalogs.named_dataset import read_named
from vlm_catalogs.source import FileSource, Source
from vlm_catalogs.toml_catalog import FileDatasets, expand_sources

DATASET_KEY = "train.train_policy.dataset.name"
NOTHING_NAMED = (
    'names no data; write [train.train_policy] dataset.name = "FOLDER", or a table [[mix.source]] with name and path, '
    "or [custom] use_i4 = true"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedSources:
    """The datasets of a mix, each name once, on one scale of weights."""

    sources: tuple[Source, ...]
    notes: tuple[str, ...]
    catalog_path: Path | None
    """The i4 catalogue that was read; None without i4 data."""


def resolve_sources(config: Config) -> ResolvedSources:
    """The datasets that a TOML names: i4 sources if it says so, else its dataset; [[mix.source]] tables beside either.

    After them stand those of validation alone, of weight 0. All other weights are relative numbers above 0: catalogues
    are normalised, a dataset reached twice has its weights added.
    Raises ConfigError with all problems that were found together.
    """
    main, beside = _read_all(
        lambda: read_i4_datasets(config) if config.custom.use_i4 else _read_dataset(config),
        lambda: expand_sources(config.mix.source, str(config.path)),
    )
    sources, merged = _merge((*main.sources, *beside.sources))
    if not sources:
        raise ConfigError(f"{config.path}: {NOTHING_NAMED}" if not config.mix.source else _all_zero(config))
    if not math.isfinite(sum(source.weight for source in sources)):
        raise ConfigError(f"{config.path}: the weights are too large to be added up; scale them down")
    catalog_path = main.catalog_path if isinstance(main, I4Datasets) else None
    notes = (*main.notes, *beside.notes, *merged)
    return ResolvedSources(
        sources=(*sources, *held_out_sources(config, sources)), notes=notes, catalog_path=catalog_path
    )


def _read_all(*readers: Callable[[], I4Datasets | FileDatasets]) -> list[I4Datasets | FileDatasets]:
    """What each reader gives. Raises ConfigError with the problems of all of them."""
    found: list[I4Datasets | FileDatasets] = []
    problems: list[str] = []
    for read in readers:
        try:
            found.append(read())
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return found


def _all_zero(config: Config) -> str:
    return f"{config.path}: every weight is 0, so there is no data to train on"


def names_of_dataset(config: Config) -> tuple[str, ...]:
    """The names of what [train.train_policy] dataset stands for: one, or those of its catalogue. Raises ConfigError."""
    return tuple(source.name for source in _read_dataset(config).sources)


def _read_dataset(config: Config) -> FileDatasets:
    """The dataset of [train.train_policy]: a file, a folder or a catalogue; nothing when none is named."""
    return read_named(config, DATASET_KEY, config.train.train_policy.dataset.name)


def _merge(sources: Iterable[Source]) -> tuple[tuple[Source, ...], list[str]]:
    """Each name once. The same dataset reached twice has its weights added; two datasets of one name are an error."""
    merged: dict[str, Source] = {}
    notes: list[str] = []
    problems: list[str] = []
    for source in sources:
        first = merged.get(source.name)
        if first is None:
            merged[source.name] = source
        elif _identity(first) == _identity(source):
            merged[source.name] = replace(first, weight=first.weight + source.weight)
            notes.append(f"{source.name}: named at {first.origin} and at {source.origin}; one dataset, weights added")
        else:
            problems.append(
                f"{source.origin}: {source.name}: {first.origin} gives that name to another dataset; rename one of them"
            )
    if problems:
        raise ConfigError("\n".join(problems))
    return tuple(merged.values()), notes


def _identity(source: Source) -> tuple[object, ...]:
    """What makes two mentions the same dataset: all but the weight and the place."""
    if isinstance(source, FileSource):
        media_root = source.media_root and os.path.realpath(source.media_root)
        columns = tuple(sorted(source.columns.items()))
        return os.path.realpath(source.path), source.format, media_root, source.repeat_time, columns
    return ("i4", source.bucket, source.local_root, *sorted(source.wdinfo.items()))
