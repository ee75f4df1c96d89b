"""Which of the four modes is this, and which of its settings decide the mix?"""

from dataclasses import asdict
from pathlib import Path

from vlm_catalogs.config.sections import Config
from vlm_catalogs.config.select_section import DuplicatesSection, EvalSection, SelectSection
from vlm_catalogs.model_family import find_family

VALIDATION = "validation."
"""What settings begin with that a run without validation may leave out."""


def describe_mode(config: Config) -> str:
    """The mode, and how it was decided.

    Such as ``Qwen3-VL on i4 data (model_type qwen3_vl from config.json; use_i4 = true)``.
    """
    family = find_family(config.policy.model_name_or_path, revision=config.policy.model_revision)
    by = f"model_type {family.model_type} from config.json" if family.model_type else "family by the model's name"
    data = "i4 data" if config.custom.use_i4 else "normal data"
    return f"{family.title} on {data} ({by}; use_i4 = {str(config.custom.use_i4).lower()})"


def mix_settings(config: Config) -> dict[str, object]:
    """The settings that decide the mix, without paths: stored in its manifest and compared when training starts."""
    custom, mix, test_size = config.custom, config.mix, config.train.train_policy.dataset.test_size
    return {
        "custom.use_i4": custom.use_i4,
        "custom.i4_data_source": custom.i4_data_source if custom.use_i4 else None,
        "custom.include_video": custom.include_video,
        "policy.model_max_length": config.policy.model_max_length,
        "train.train_policy.system_prompt": config.train.train_policy.system_prompt,
        "train.train_policy.dataset.name": None if custom.use_i4 else config.train.train_policy.dataset.name,
        **({"train.train_policy.dataset.test_size": test_size} if test_size and not custom.use_i4 else {}),
        **_validation_settings(config),
        "mix.weight_unit": mix.weight_unit,
        "mix.epoch_samples": mix.epoch_samples,
        **({"mix.epoch_tokens": mix.epoch_tokens} if mix.epoch_tokens else {}),
        "mix.seed": mix.seed,
        "mix.convert": mix.convert,
        **({"mix.decode": mix.decode} if mix.decode != "header" else {}),
        "mix.length_policy": mix.length_policy,
        "mix.max_rejected_fraction": mix.max_rejected_fraction,
        "mix.max_sample_bytes": mix.max_sample_bytes,
        **({"mix.fetch_media": sorted(mix.fetch_private_hosts)} if mix.fetch_media else {}),
        "mix.source": [
            {
                "name": source.name,
                "format": source.format,
                "weight": source.weight,
                "repeat_time": source.repeat_time,
                "catalog": source.catalog,
                **({"columns": dict(source.columns)} if source.columns else {}),
            }
            for source in mix.source
        ],
        **_select_settings(mix.select),
    }


def _validation_settings(config: Config) -> dict[str, object]:
    """Which datasets are there for validation alone; a run without validation does not ask for any."""
    asked = config.validation
    if not asked.enable:
        return {}
    return {
        **({f"{VALIDATION}i4_val": True} if config.custom.use_i4 and asked.i4_val else {}),
        **({f"{VALIDATION}dataset.name": asked.dataset.name} if asked.dataset.name else {}),
    }


def _duplicates_settings(duplicates: DuplicatesSection) -> dict[str, object]:
    """What was set; without ``near`` as mixes had it before there was one."""
    if duplicates.near is None:
        return {key: value for key, value in asdict(duplicates).items() if duplicates.by != "none" and key != "near"}
    return asdict(duplicates)


def _select_settings(select: SelectSection) -> dict[str, object]:
    """What was set of [mix.select]; of files their names, because what they say shows in the selection's hash."""
    settings: dict[str, object] = {
        "where": [list(each) for each in select.where.items()],
        "dataset_where": [
            [name, [list(each) for each in rules.items()]] for name, rules in select.dataset_where.items()
        ],
        "tables": [[name, Path(path).name] for name, path in select.tables.items()],
        "include": [Path(path).name for path in select.include],
        "exclude": [Path(path).name for path in select.exclude],
        "held_out": [Path(path).name for path in select.held_out],
        "max_samples": dict(select.max_samples),
        "max_tokens": dict(select.max_tokens),
        "fractions": dict(select.fractions),
        "duplicates": _duplicates_settings(select.duplicates),
        "eval": {} if select.eval == EvalSection() else asdict(select.eval),
    }
    return {f"mix.select.{key}": value for key, value in settings.items() if value}
