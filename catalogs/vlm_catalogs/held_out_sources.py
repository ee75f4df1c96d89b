"""Which sources are for validation alone? The ``val`` wdinfos of i4 sources, and [validation.dataset].

Each becomes a dataset of its own, ``<name>.val``, of weight 0, so that a mix holds and pins it like any other.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

from vlm_catalogs.config.sections import Config
from vlm_catalogs.errors import ConfigError
from vlm_catalogs.named_dataset import read_named
from vlm_catalogs.source import FileSource, I4Source, Source

DATASET_KEY = "validation.dataset.name"
VAL = "val"


def held_out_sources(config: Config, sources: Sequence[Source]) -> tuple[Source, ...]:
    """The sources of validation beside ``sources``, those to train on; none where [validation] is not enabled.

    Raises ConfigError for a dataset that two of them would hold samples out of, naming both.
    """
    if not config.validation.enable:
        return ()
    i4 = [one for one in sources if isinstance(one, I4Source) and VAL in one.wdinfo and config.validation.i4_val]
    own = read_named(config, DATASET_KEY, config.validation.dataset.name).sources
    problems = [*_split_twice(config, i4), *_trained_on(config, own, sources)]
    if problems:
        raise ConfigError("\n".join(problems))
    names = {one.name for one in sources}
    found: list[Source] = [*i4, *own]
    held_out = [_held_out(one) for one in found]
    for one in held_out:
        if one.name in names:
            raise ConfigError(f"{one.origin}: {one.name} is the name of a dataset to train on already; rename that one")
        names.add(one.name)
    return tuple(held_out)


def _held_out(source: Source) -> Source:
    return replace(source, name=f"{source.name}.{VAL}", weight=0.0, is_held_out=True)


def _split_twice(config: Config, sources: Sequence[I4Source]) -> Iterator[str]:
    """Datasets that [mix.select.eval] holds samples out of, and that have a ``val`` wdinfo as well."""
    split = config.mix.select.eval
    if split.fraction is None and split.num_samples is None:
        return
    key = f"mix.select.eval.{'fraction' if split.num_samples is None else 'num_samples'}"
    for source in sources:
        if not split.datasets or source.name in split.datasets:
            yield (
                f"{source.origin}: {source.name}: has a val wdinfo, and {config.where(key)}: {key} holds samples of it "
                "out too; keep one: name other datasets in mix.select.eval.datasets, or set validation.i4_val = false"
            )


def _trained_on(config: Config, own: Sequence[FileSource], sources: Sequence[Source]) -> Iterator[str]:
    """What stands in [validation.dataset] and is trained on as well."""
    trained = {os.path.realpath(one.path): one for one in sources if isinstance(one, FileSource)}
    for source in own:
        same = trained.get(os.path.realpath(source.path))
        if same is not None:
            yield (
                f"{config.where(DATASET_KEY)}: {DATASET_KEY}: {source.path} is trained on too ({same.origin}: "
                f"{same.name}); name another dataset, or hold samples out by test_size or [mix.select.eval]"
            )
