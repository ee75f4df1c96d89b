"""What a Config must hold across its keys, and what its user should know about how settings meet."""

import math
import re
from collections.abc import Mapping

from vlm_catalogs.config.audit_section import AuditSection
from vlm_catalogs.config.problems import Problems
from vlm_catalogs.config.sections import Config, DatasetSection, MixSection, MixSource, ValidationSection
from vlm_catalogs.config.select_section import EvalSection, SelectSection
from vlm_catalogs.errors import ConfigError
from vlm_catalogs.model_family import find_family

READ_COLUMNS = ("messages", "conversations")
"""The reader of each form finds these by itself."""
SEVERITIES = ("E", "W", "I")
"""Of an audit's findings: errors, warnings, information."""
HUB_NAME = re.compile(r"([\w.-]+/)?[\w.-]+")
FOLDER_NAME = re.compile(r"[^/\\\0]+")
NO_HUB = "datasets of a hub are not built yet; name a local folder or file"
PART_OF_VALIDATION = {
    "subset": NO_HUB,
    "revision": NO_HUB,
    "local_dir": NO_HUB,
    "split": "splits other than 'train' are not built yet; name the split's folder",
    "test_size": "all of validation.dataset.name is validated on; leave it out",
}
"""Keys of [validation.dataset] that would name a part of a dataset, and what is said where they are refused."""
WHOLE_SPLITS = ("", "train", ("train",), ())


def check(config: Config, problems: Problems) -> tuple[str, ...]:
    """Report what does not fit together; return what the user should know."""
    _check_batch(config, problems)
    _check_schedule(config, problems)
    _check_uploads(config, problems)
    _check_patterns(config, problems)
    _check_adapters(config, problems)
    _check_names(config, problems)
    _check_places(config.mix, problems)
    for number, source in enumerate(config.mix.source):
        _check_source(source, f"mix.source[{number}]", problems)
    _check_select(config.mix.select, problems)
    _check_audit(config.mix.audit, problems)
    _check_dataset(config, problems)
    _check_validation(config, problems)
    _check_family(config, problems)
    return (*_dataset_notes(config), *_validation_notes(config), *_answer_notes(config), *_upload_notes(config))


def _check_audit(audit: AuditSection, problems: Problems) -> None:
    for severity in audit.fail_at:
        if severity not in SEVERITIES:
            problems.add(f"mix.audit.fail_at.{severity}", f"unknown severity, expected {', '.join(SEVERITIES)}")


def _check_batch(config: Config, problems: Problems) -> None:
    mini_batch = config.train.train_policy.mini_batch
    rows, key = config.train.train_batch_per_replica, "train.train_batch_per_replica"
    if config.stream.rows_per_step is not None:
        rows, key = config.stream.rows_per_step, "stream.rows_per_step"
    if rows % mini_batch:
        works = ", ".join(str(size) for size in _divisors(rows))
        problems.add(key, f"expected a multiple of mini_batch ({mini_batch}), got {rows}; mini_batch could be {works}")


def _divisors(number: int) -> list[int]:
    small = [size for size in range(1, math.isqrt(number) + 1) if number % size == 0]
    return sorted({*small, *(number // size for size in small)})


def _check_schedule(config: Config, problems: Problems) -> None:
    train = config.train
    warmup = train.optm_warmup_steps
    if isinstance(warmup, float) and warmup > 1 and not warmup.is_integer():
        problems.add(
            "train.optm_warmup_steps",
            f"expected a whole number of steps, or a share from 0.0 to 1.0, got {warmup}",
        )
    if train.optm_decay_ratio and train.optm_decay_type == "none":
        problems.add(
            "train.optm_decay_ratio",
            "has no effect without optm_decay_type; set that to 'linear', 'cosine' or 'sqrt', or leave the ratio out",
        )


def _check_uploads(config: Config, problems: Problems) -> None:
    ckpt = config.train.ckpt
    if ckpt.upload_s3 and not ckpt.s3_bucket:
        problems.add("train.ckpt.upload_s3", "needs the name of a bucket in s3_bucket")
    if ckpt.upload_hf and not HUB_NAME.fullmatch(ckpt.hf_repo_name):
        problems.add("train.ckpt.upload_hf", f"needs name or owner/name in hf_repo_name, got {ckpt.hf_repo_name!r}")


def _upload_notes(config: Config) -> tuple[str, ...]:
    ckpt = config.train.ckpt
    notes = []
    if ckpt.upload_s3 and not (ckpt.enable_checkpoint or ckpt.export_safetensors):
        notes.append("train.ckpt.upload_s3: has no effect without enable_checkpoint or export_safetensors")
    if ckpt.upload_hf and not ckpt.export_safetensors:
        notes.append("train.ckpt.upload_hf: has no effect without export_safetensors")
    return tuple(notes)


def _check_patterns(config: Config, problems: Problems) -> None:
    rates = config.train.optm_lr
    patterns = {
        "policy.freeze_pattern": config.policy.freeze_pattern,
        "policy.trainable_pattern": config.policy.trainable_pattern,
        "train.optm_lr": tuple(rates) if isinstance(rates, Mapping) else (),
    }
    for key, pattern in ((key, one) for key, several in patterns.items() for one in several):
        try:
            re.compile(pattern)
        except re.error as error:
            problems.add(key, f"expected regular expressions, got {pattern!r}: {error}")


def _check_adapters(config: Config, problems: Problems) -> None:
    rules = {
        "custom.train_layers": config.custom.train_layers,
        **{
            f"policy.{name}": getattr(config.policy, name)
            for name in ("freeze_pattern", "trainable_pattern", "trainable_map")
        },
    }
    for key, value in rules.items() if config.policy.lora is not None else ():
        if value:
            problems.add(key, "has no effect beside [policy.lora], which trains adapters and modules_to_save only")


def _check_names(config: Config, problems: Problems) -> None:
    if not config.policy.model_name_or_path:
        problems.add("policy.model_name_or_path", "missing; name a model folder or a hub id")
    if not _is_folder_name(config.mix.name):
        problems.add("mix.name", f"expected the name of one folder, got {config.mix.name!r}")
    for key, value in (
        ("train.output_dir", config.train.output_dir),
        ("mix.root", config.mix.root),
        ("mix.shards", config.mix.shards),
    ):
        if not value.strip():
            problems.add(key, "expected a path, got an empty string")


def _check_places(mix: MixSection, problems: Problems) -> None:
    """What is in S3 is read on other machines too, so it cannot lead to a folder of this one."""
    for key, place in (("mix.root", mix.root), ("mix.shards", mix.shards)):
        if place.startswith("s3://") and not place.removeprefix("s3://").partition("/")[0]:
            problems.add(key, f"expected s3://bucket/prefix, got {place!r}")
    if mix.root.startswith("s3://") and not mix.shards.startswith("s3://"):
        problems.add("mix.shards", f"expected s3://bucket/prefix, since mix.root is in S3, got {mix.shards!r}")


def _is_folder_name(name: str) -> bool:
    return name not in (".", "..") and FOLDER_NAME.fullmatch(name) is not None


def _check_source(source: MixSource, key: str, problems: Problems) -> None:
    if source.catalog is not None:
        if source.name or source.path:
            problems.add(f"{key}.catalog", "expected either catalog, or name and path; got both")
        return
    for name, value in (("name", source.name), ("path", source.path)):
        if not value:
            problems.add(f"{key}.{name}", "missing; a source has a name and a path, or a catalog")
    if source.name and not _is_folder_name(source.name):
        problems.add(f"{key}.name", f"expected a name without slashes, got {source.name!r}")


def _check_select(select: SelectSection, problems: Problems) -> None:
    if select.eval.fraction is not None and select.eval.num_samples is not None:
        problems.add("mix.select.eval.num_samples", "expected either fraction or num_samples; got both")
    if select.eval.datasets and select.eval.fraction is None and select.eval.num_samples is None:
        problems.add("mix.select.eval.datasets", "has no effect without fraction or num_samples")
    if select.duplicates.priority and select.duplicates.by == "none":
        problems.add("mix.select.duplicates.priority", "has no effect without duplicates.by")
    if select.tables and not select.where and not select.dataset_where:
        problems.add("mix.select.tables", "has no effect without a condition that names it in [mix.select.where]")
    for name in select.tables:
        if name in ("samples", "refused") or not name.isidentifier():
            problems.add(f"mix.select.tables.{name}", "expected a name that SQL can write, and not samples or refused")


def _check_dataset(config: Config, problems: Problems) -> None:
    """What names a part of a hub dataset is not built yet; with i4 data nothing reads these keys."""
    policy, dataset = config.train.train_policy, config.train.train_policy.dataset
    if config.custom.use_i4:
        return
    for name in ("subset", "revision", "local_dir"):
        if getattr(dataset, name):
            problems.add(f"train.train_policy.dataset.{name}", NO_HUB)
    if dataset.split not in WHOLE_SPLITS:
        problems.add("train.train_policy.dataset.split", "splits other than 'train' are not built yet")
    if dataset.test_size and is_held_out(config.mix.select.eval):
        problems.add("train.train_policy.dataset.test_size", "holds samples out, and [mix.select.eval] too; keep one")
    if isinstance(dataset.test_size, float) and not (dataset.test_size < 1 or dataset.test_size.is_integer()):
        problems.add(
            "train.train_policy.dataset.test_size",
            f"expected a share under 1, or a whole number of samples, got {dataset.test_size}",
        )
    if policy.conversation_column_name not in READ_COLUMNS:
        problems.add(
            "train.train_policy.conversation_column_name",
            f"expected one of {READ_COLUMNS}, got {policy.conversation_column_name!r}; others are not built yet",
        )


def _check_validation(config: Config, problems: Problems) -> None:
    """What does not go with a dataset of its own to validate on. Without one these keys are noted."""
    if not _names_held_out_data(config.validation):
        return
    if config.train.train_policy.dataset.test_size and not config.custom.use_i4:
        key = "train.train_policy.dataset.test_size"
        problems.add(
            "validation.dataset.name",
            f"a dataset to validate on, and {config.where(key)}: {key} holds one out; keep one",
        )
    for name in _parts_named(config.validation.dataset):
        problems.add(f"validation.dataset.{name}", PART_OF_VALIDATION[name])


def _validation_notes(config: Config) -> tuple[str, ...]:
    unread = ", ".join(f"validation.dataset.{name}" for name in _parts_named(config.validation.dataset))
    if not unread or _names_held_out_data(config.validation):
        return ()
    return (f"{unread}: not read without [validation] enable and validation.dataset.name",)


def _parts_named(dataset: DatasetSection) -> list[str]:
    """The keys that are set so that they would name a part of it."""
    by_name = {name: getattr(dataset, name) for name in PART_OF_VALIDATION}
    return [name for name, value in by_name.items() if (value not in WHOLE_SPLITS if name == "split" else value)]


def _names_held_out_data(validation: ValidationSection) -> bool:
    return validation.enable and bool(validation.dataset.name)


def _answer_notes(config: Config) -> tuple[str, ...]:
    """Of what people's files have for the rollouts of cosmos-rl."""
    key = "validation.max_response_length"
    if key in config.lines and not config.validation.generate:
        return (f"{key}: no answers are written without [validation] generate, so it limits nothing",)
    return ()


def is_held_out(split: EvalSection) -> bool:
    """Does [mix.select.eval] hold samples out?"""
    return split.fraction is not None or split.num_samples is not None


def _check_family(config: Config, problems: Problems) -> None:
    if not config.policy.model_name_or_path:
        return
    try:
        find_family(config.policy.model_name_or_path, revision=config.policy.model_revision)
    except ConfigError as error:
        problems.add("policy.model_name_or_path", str(error))


def _dataset_notes(config: Config) -> tuple[str, ...]:
    if config.custom.use_i4 and config.train.train_policy.dataset != DatasetSection():
        return (
            "use_i4 = true: [train.train_policy] dataset is not read; put a dataset that should stand beside the i4 "
            "sources into a [[mix.source]] table",
        )
    return ()
