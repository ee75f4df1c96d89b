"""The i4 datasets of a run: a weight dictionary and the DATAINFO beside it, read into I4Source values."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Real
from pathlib import Path
from typing import Any

from vlm_catalogs.catalog_language import DEFAULT_MEDIA_KEYS, Catalog, display_path, read_catalog
from vlm_catalogs.config.credentials import i4_credentials
from vlm_catalogs.config.sections import Config
from vlm_catalogs.dataset_name import name_problem
from vlm_catalogs.errors import ConfigError
from vlm_catalogs.source import I4Source

SOURCE_KEY = "custom.i4_data_source"
ROOT_KEY = "mix.i4_root"
TRAIN = "train"


@dataclass(frozen=True, slots=True, kw_only=True)
class I4Datasets:
    """What an i4 catalogue holds for a mix."""

    sources: tuple[I4Source, ...]
    notes: tuple[str, ...]
    catalog_path: Path


class _Problem(Exception):
    """One thing that is wrong with one dataset; all are reported together."""


def read_i4_datasets(config: Config) -> I4Datasets:
    """The sources of ``[custom] i4_data_source``, in the order of its dictionary; weight 0 leaves one out, with a note.

    Raises ConfigError with everything that is wrong, one problem a line.
    """
    catalog, attribute = _open_catalog(config)
    reader = _I4Reader(config, catalog, attribute)
    sources = reader.read_sources()
    used = f"i4 catalogue: {display_path(catalog.path)}, {attribute}: {len(sources)} of {len(reader.datainfo)} datasets"
    return I4Datasets(sources=sources, notes=(*_default_note(config), used, *reader.notes), catalog_path=catalog.path)


def _open_catalog(config: Config) -> tuple[Catalog, str]:
    where = config.where(SOURCE_KEY)
    module, dot, attribute = config.custom.i4_data_source.rpartition(".")
    if not dot or not all(part.isidentifier() for part in (*module.split("."), attribute)):
        raise ConfigError(
            f"{where}: {SOURCE_KEY}: expected module.attribute, such as 'i4_data_utils.data_weight_default', "
            f"got {config.custom.i4_data_source!r}"
        )
    root = config.mix.i4_root
    if root is not None and not Path(root).is_dir():
        raise ConfigError(
            f"{config.where(ROOT_KEY)}: {ROOT_KEY}: expected a folder with the bucket's layout, got {root!r}"
        )
    return read_catalog(module, allow_code=config.custom.allow_catalog_code, where=where), attribute


def _default_note(config: Config) -> list[str]:
    if SOURCE_KEY in config.lines:
        return []
    return [f"no i4_data_source is named in [custom], so the default is used: {config.custom.i4_data_source}"]


class _I4Reader:
    """One walk over a weight dictionary, gathering problems and notes."""

    def __init__(self, config: Config, catalog: Catalog, attribute: str) -> None:
        self.config = config
        self.catalog = catalog
        self.attribute = attribute
        self.notes: list[str] = []
        self.weights = self._dictionary(attribute, catalog.attribute(attribute))
        self.datainfo = self._dictionary("DATAINFO", catalog.attribute("DATAINFO"))
        self.subsample = self._dictionary("subsample_config", catalog.names.get("subsample_config") or {})

        self._note_unknown()

    def _note_unknown(self) -> None:
        """Say which names have a fraction but no weight: they are most often misspelled."""
        unknown = [name for name in self.subsample if name not in self.weights and name not in self.datainfo]
        if unknown:
            shown = ", ".join(map(_shown, unknown[:8])) + (", ..." if len(unknown) > 8 else "")
            self.notes.append(f"subsample_config: no such dataset, so nothing reads it: {shown}")

    def _dictionary(self, name: str, value: object) -> dict[Any, Any]:
        if isinstance(value, dict):
            return value
        raise ConfigError(f"{self.catalog.where(name)}: {name}: expected a dictionary, got {type(value).__name__}")

    def read_sources(self) -> tuple[I4Source, ...]:
        sources: list[I4Source] = []
        problems: list[str] = []
        for name, weight in self.weights.items():
            try:
                sources.extend(self._read_dataset(name, weight))
            except _Problem as problem:
                problems.append(f"{self.catalog.where(self.attribute, name)}: {name}: {problem}")
        if problems:
            raise ConfigError("\n".join(problems))
        if not sources:
            state = "every weight is 0" if self.weights else "it is empty"
            raise ConfigError(
                f"{self.catalog.where(self.attribute)}: {self.attribute}: no dataset to train on, {state}"
            )
        return tuple(sources)

    def _read_dataset(self, name: Any, weight: object) -> list[I4Source]:
        """The source, or nothing for weight 0."""
        if problem := name_problem(name):
            raise _Problem(problem)
        share = _read_weight(weight)
        if name not in self.datainfo:
            raise _Problem(f"is not in DATAINFO{_close_names(name, self.datainfo)}")
        if share == 0:
            self.notes.append(f"{name}: weight 0, so it is left out")
            return []
        return [self._read_source(name, share, self.datainfo[name])]

    def _read_source(self, name: str, weight: float, entry: Any) -> I4Source:
        if not hasattr(entry, "wdinfo_path"):
            raise _Problem(f"DATAINFO holds {type(entry).__name__} for it, expected DataSource(...)")
        wdinfo, buckets = self._read_wdinfo(name, entry.wdinfo_path)
        media_keys = self._read_media_keys(name, entry)
        return I4Source(
            name=name,
            weight=weight,
            wdinfo=wdinfo,
            text_keys=_read_keys("text_keys", entry.text_keys),
            media_keys=media_keys,
            text_only=not media_keys,
            bucket=self._read_bucket(entry, buckets),
            local_root=self.config.mix.i4_root,
            credentials_path=i4_credentials(self.config),
            subsample=_read_fractions(self.subsample.get(name, {})),
            origin=getattr(entry, "origin", "") or self.catalog.where("DATAINFO", name),
        )

    def _read_wdinfo(self, name: str, paths: object) -> tuple[dict[str, str], set[str]]:
        """Split -> key, and the buckets that s3:// addresses name."""
        if isinstance(paths, str):
            self.notes.append(f"{name}: wdinfo_path is one path; it is read as the split {TRAIN!r}")
            paths = {TRAIN: paths}
        if not isinstance(paths, dict) or not all(isinstance(one, str) and one for one in (*paths, *paths.values())):
            raise _Problem("wdinfo_path: expected split -> path of a wdinfo.json, each a text")
        if TRAIN not in paths:
            raise _Problem(f"wdinfo_path: has no {TRAIN!r} split to train on; it has {', '.join(paths) or 'none'}")
        split = {name: _split_address(path) for name, path in paths.items()}
        return {name: key for name, (_, key) in split.items()}, {bucket for bucket, _ in split.values() if bucket}

    def _read_media_keys(self, name: str, entry: Any) -> tuple[str, ...]:
        keys = getattr(entry, "media_keys", DEFAULT_MEDIA_KEYS)
        if not isinstance(getattr(entry, "text_only", False), bool):
            raise _Problem(f"text_only: expected True or False, got {_shown(entry.text_only)}")
        if keys is None or getattr(entry, "text_only", False):
            return ()
        if keys is DEFAULT_MEDIA_KEYS:
            self.notes.append(f"{name}: media_keys is not given; read as ['media']")
        return _read_keys("media_keys", keys, may_be_empty=True)

    def _read_bucket(self, entry: Any, addressed: set[str]) -> str:
        """The bucket of the addresses, else the dataset's own, else the TOML's."""
        own = getattr(entry, "bucket_name", None)
        if own is not None and (not isinstance(own, str) or not own):
            raise _Problem(f"bucket_name: expected a text or None, got {_shown(own)}")
        if len(addressed) > 1:
            raise _Problem(f"wdinfo_path: its splits lie in several buckets: {', '.join(sorted(addressed))}")
        bucket = next(iter(addressed), own or self.config.custom.s3_bucket)
        return bucket.removeprefix("s3://").strip("/")


def _shown(value: object) -> str:
    """A value for a message: never as a whole, since sharing can make a small value print for ever."""
    if isinstance(value, str | int | float | type(None)):
        return repr(value) if not isinstance(value, str) else repr(value[:80])
    return f"a {type(value).__name__}"


def _read_weight(weight: object) -> float:
    if isinstance(weight, bool) or not isinstance(weight, Real):
        raise _Problem(f"weight must be a number, got {_shown(weight)}")
    try:
        number = float(weight)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number < 0:
        raise _Problem(f"weight must be a finite number >= 0, got {number:g}; 0 leaves the dataset out")
    return number


def _read_keys(field: str, keys: object, *, may_be_empty: bool = False) -> tuple[str, ...]:
    names = (keys,) if isinstance(keys, str) else keys
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name for name in names):
        raise _Problem(f"{field}: expected a list of texts, got {_shown(keys)}")
    if not names and not may_be_empty:
        raise _Problem(f"{field}: names no key, so there is no text to read")
    return tuple(names)


def _read_fractions(fractions: object) -> dict[str, float]:
    """Split -> fraction; a plain number is the fraction of the training split."""
    table = {TRAIN: fractions} if isinstance(fractions, Real) else fractions
    if not isinstance(table, dict):
        raise _Problem(f"subsample_config: expected split -> fraction, got {_shown(fractions)}")
    for split, fraction in table.items():
        if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 < fraction <= 1:
            raise _Problem(f"subsample_config: {split}: expected a fraction > 0 and <= 1, got {_shown(fraction)}")
    return {str(split): float(fraction) for split, fraction in table.items()}


def _split_address(path: str) -> tuple[str, str]:
    """Bucket ("" for none) and key of a path that may be ``s3://bucket/key``."""
    if not path.startswith("s3://"):
        return "", path
    bucket, _, key = path.removeprefix("s3://").partition("/")
    if not bucket or not key:
        raise _Problem(f"wdinfo_path: expected s3://bucket/key, got {path!r}")
    return bucket, key


def _close_names(name: str, names: Mapping[Any, Any]) -> str:
    known = [one for one in names if isinstance(one, str)]
    close = get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f" (it has {', '.join(known[:8])}{', ...' if len(known) > 8 else ''})" if known else ", which is empty"
