"""Which sources have changed since the last build of this mix, and how much of them is converted anew?"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_catalogs.config import Config
from vlm_catalogs.errors import DataError
from vlm_catalogs.layout import PART_FILE, part_folder, read_part
from vlm_catalogs.manifest import MixDataset, read_manifest
from vlm_catalogs.mix_place import copies_of, find_current, layout_folder, mix_root
from vlm_prep.source_plan import SourcePlan

NAMED = 3
"""So many files of each kind of change are named."""

Contents = dict[str, set[tuple[Any, ...]]]
"""Name of an input -> what its ranges are: places, sizes, content ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """How the files of a source differ from those of the last build."""

    changed: tuple[str, ...]
    new: tuple[str, ...]
    gone: tuple[str, ...]

    def __str__(self) -> str:
        kinds = (("changed", self.changed), ("new", self.new), ("gone", self.gone))
        return "; ".join(f"{what}: {_some(names)}" for what, names in kinds if names)


def changes_since(config: Config, plans: Sequence[SourcePlan]) -> list[str]:
    """A line for each source that is not as the current version of the mix has it; none before the first build."""
    copies = copies_of(config)
    try:
        mix = find_current(mix_root(config, copies), copies)
        before = {dataset.name: dataset for dataset in read_manifest(mix).datasets}
    except DataError:
        return []  # no mix yet, or a damaged one, which the build itself will say
    return [
        text
        for plan in plans
        if plan.source.name in before
        for text in _lines(layout_folder(mix, before[plan.source.name], copies), before[plan.source.name], plan)
    ]


def _lines(layout: Path, dataset: MixDataset, plan: SourcePlan) -> Iterator[str]:
    anew = f"{len(plan.missing):,} of {len(plan.parts):,} parts are converted anew"
    if layout != Path(os.path.realpath(plan.layout)):  # as resolve(), which a link to itself makes fail
        yield f"{plan.source.name}: is read in another way than before (format, keys, columns or limits); {anew}"
        return
    pinned = {pin.name for pin in dataset.parts}
    if pinned == {part.name for part in plan.parts} or (
        dataset.of_parts is not None and pinned <= {part.name for part in plan.parts}
    ):
        return
    change = compare(_recorded(plan, dataset), _planned(plan), is_whole=dataset.of_parts is None)
    yield f"{plan.source.name}: has changed since the last build ({change or 'media beside it have come back'}); {anew}"


def compare(before: Contents, now: Contents, *, is_whole: bool) -> Change | None:
    """What differs; of a version with only some of the parts (``is_whole`` false) it is unknown what is new."""
    change = Change(
        changed=tuple(
            name for name in now if name in before and not _is_same(before[name], now[name], is_whole=is_whole)
        ),
        new=tuple(name for name in now if name not in before) if is_whole else (),
        gone=tuple(name for name in before if name not in now),
    )
    return change if str(change) else None


def _is_same(before: set[tuple[Any, ...]], now: set[tuple[Any, ...]], *, is_whole: bool) -> bool:
    return before == now if is_whole else before <= now


def _recorded(plan: SourcePlan, dataset: MixDataset) -> Contents:
    """The inputs of the parts that the mix pins, as far as they are still there."""
    folders = [part_folder(plan.layout, pin.name) for pin in dataset.parts]
    plan.store.bring((folder / PART_FILE for folder in folders), below=plan.layout / "parts")
    there = [folder for folder in folders if (folder / PART_FILE).exists()]
    return _by_name(entry for folder in there for entry in read_part(folder).inputs)


def _planned(plan: SourcePlan) -> Contents:
    return _by_name(one.as_json() for part in plan.parts for one in part.inputs)


def _by_name(entries: Iterable[dict[str, Any]]) -> Contents:
    found: Contents = {}
    for entry in entries:
        found.setdefault(str(entry["name"]), set()).add(tuple(value for key, value in entry.items() if key != "name"))
    return found


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
