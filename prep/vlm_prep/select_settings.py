"""What [mix.select] of a TOML asks for, as the rules of a selection; the user's files are read here."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

import pyarrow as pa

from vlm_catalogs.config import Config
from vlm_catalogs.errors import ConfigError
from vlm_catalogs.mix_place import copies_of
from vlm_catalogs.sources import names_of_dataset
from vlm_prep.select import Rules
from vlm_prep.selection_rules import Caps, DuplicateRule, EvalRule
from vlm_prep.user_tables import read_held_out, read_lists, read_score_tables
from vlm_prep.where import Condition, check_condition, check_conditions


def read_rules(config: Config, fractions: Mapping[str, float], *, held_out: Sequence[str] = ()) -> Rules:
    """The rules of a mix; ``fractions`` are those of its sources: dataset -> at most 1.

    ``held_out`` are the datasets of validation alone. Of samples that are alike, theirs stay first.

    Raises ConfigError for a condition that is no expression, an unknown dataset, a file that cannot be read.
    """
    trained = [name for name in fractions if name not in held_out]
    _refuse_unknown_datasets(config, trained)
    select, seed = config.mix.select, config.mix.seed
    conditions = tuple(_conditions(config))
    for condition in conditions:
        check_condition(condition)
    scores = read_score_tables(select.tables, origin=_origin(config, "tables"))
    check_conditions(conditions, scores=scores)
    caps = {name: fraction * select.fractions.get(name, 1.0) for name, fraction in fractions.items()}
    return Rules(
        caps=Caps(fractions=caps, max_samples=select.max_samples, max_tokens=select.max_tokens),
        include_video=config.custom.include_video,
        model_max_length=config.policy.model_max_length,
        seed=seed,
        conditions=conditions,
        scores=scores,
        included=read_lists(select.include, origin=_origin(config, "include")) if select.include else None,
        excluded=read_lists(select.exclude, origin=_origin(config, "exclude")) if select.exclude else None,
        held_out=_held_out(config),
        validation=tuple(held_out),
        duplicates=_duplicates(config, held_out),
        eval_split=_eval_split(config, trained if held_out else ()),
    )


def _conditions(config: Config) -> Iterable[Condition]:
    select = config.mix.select
    for name, sql in select.where.items():
        yield Condition(name=name, sql=sql, origin=config.where(f"mix.select.where.{name}"))
    for dataset, conditions in select.dataset_where.items():
        for name, sql in conditions.items():
            key = f"mix.select.dataset_where.{dataset}"
            yield Condition(name=name, sql=sql, origin=config.where(f"{key}.{name}"), key=key, dataset=dataset)


def _held_out(config: Config) -> pa.Table | None:
    paths = config.mix.select.held_out
    return read_held_out(paths, origin=_origin(config, "held_out"), copies=copies_of(config)) if paths else None


def _duplicates(config: Config, held_out: Sequence[str]) -> DuplicateRule | None:
    asked = config.mix.select.duplicates
    if asked.by == "none" and asked.near is None:
        return None
    return DuplicateRule(by=asked.by, near=asked.near, across=asked.across, priority=(*held_out, *asked.priority))


def _eval_split(config: Config, trained: Sequence[str]) -> EvalRule | None:
    asked, size = config.mix.select.eval, config.train.train_policy.dataset.test_size
    if size and not config.custom.use_i4:
        is_share = isinstance(size, float) and size < 1
        return EvalRule(
            fraction=size if is_share else None,
            num_samples=None if is_share else int(size),
            datasets=names_of_dataset(config),
        )
    if asked.fraction is None and asked.num_samples is None:
        return None
    return EvalRule(fraction=asked.fraction, num_samples=asked.num_samples, datasets=asked.datasets or tuple(trained))


def _refuse_unknown_datasets(config: Config, known: Iterable[str]) -> None:
    select, names = config.mix.select, list(known)
    asked = {
        "dataset_where": select.dataset_where,
        "max_samples": select.max_samples,
        "max_tokens": select.max_tokens,
        "fractions": select.fractions,
        "duplicates.priority": select.duplicates.priority,
        "eval.datasets": select.eval.datasets,
    }
    for key, datasets in asked.items():
        for unknown in (name for name in datasets if name not in names):
            near = get_close_matches(unknown, names, n=1)
            advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
            raise ConfigError(
                f"{config.where(f'mix.select.{key}')}: mix.select.{key}: no dataset {unknown!r}; {advice}"
            )


def _origin(config: Config, key: str) -> str:
    return f"{config.where(f'mix.select.{key}')}: mix.select.{key}"
