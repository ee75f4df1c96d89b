"""Checkpoints: whole or not there. Written beside their name, hashed, marked COMPLETE last, then renamed.

    checkpoints/step-20/    .metadata, *.distcp (weights and optimizer), state.json, COMPLETE

state.json holds where the run stood, the fingerprint that resume compares, and size and hash of every other file;
COMPLETE holds the hash of state.json. No random state is stored: every step seeds its own generators (loop.seed_step).
"""

import shutil
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_catalogs import json_text
from vlm_catalogs.durable import sync_folder, write_synced
from vlm_catalogs.errors import ConfigError, DataError, StorageError
from vlm_catalogs.hashing import content_hash, file_hash
from vlm_train.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

CHECKPOINTS = "checkpoints"
STATE_FILE = "state.json"
COMPLETE_FILE = "COMPLETE"
FORMAT = "vlm-mix/checkpoint"
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """Where a run stands after a step: all that resume needs beside weights and optimizer."""

    step: int
    """Optimizer steps done."""
    epoch: int
    """Epoch of the next step."""
    epoch_step: int
    """The next step within that epoch, as in the epoch table."""
    fingerprint: Mapping[str, Any]
    validation_loss: float | None = None
    """Held-out loss of these weights, where it was measured."""
    guard: Mapping[str, Any] = field(default_factory=dict)
    """What ``StepGuard.state`` keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFile:
    """One file of a checkpoint by content."""

    name: str
    bytes: int
    xxh3_128: str


def write_checkpoint(
    run: Path,
    state: RunState,
    tensors: Mapping[str, Any],
    *,
    max_keep: int,
    ranks: Ranks = ALONE,
    pinned: Callable[[], Collection[Path]] = frozenset,
) -> Path:
    """Write ``<run>/checkpoints/step-N`` whole, then remove the oldest beyond ``max_keep`` (-1 keeps all).

    The one with the lowest held-out loss stays beside these, and so do those that ``pinned`` names. Every rank writes
    its shares of ``tensors``, the first one all else.

    Raises StorageError, leaving no half of it, when the disk does not take it.
    """
    final = checkpoint_path(run, state.step)
    staging = final.with_name(f"{final.name}.tmp")
    try:
        _write_staging(staging, state, tensors, ranks)
        if ranks.is_first:
            staging.rename(final)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise StorageError(
            f"{final}: cannot be saved: {error.strerror or error}; free some space and go on with --resume from the "
            "checkpoint before"
        ) from error
    if ranks.is_first:
        sync_folder(final.parent)
        remove_oldest(run, max_keep, pinned())
    ranks.wait()
    return final


def _write_staging(staging: Path, state: RunState, tensors: Mapping[str, Any], ranks: Ranks) -> None:
    """Everything of a checkpoint, synced. Raises OSError."""
    if ranks.is_first:
        if staging.exists():  # left by a killed save of ours: never whole, never read
            shutil.rmtree(staging)
        staging.mkdir(parents=True)
    ranks.wait()
    _save_tensors(staging, tensors, ranks)
    ranks.wait()
    if not ranks.is_first:
        return
    files = [_describe(path) for path in sorted(staging.iterdir())]
    text = json_text.dumps_indented(
        {"format": FORMAT, "version": VERSION, **asdict(state), "files": [asdict(file) for file in files]}
    ).encode()
    write_synced(staging / STATE_FILE, text)
    write_synced(staging / COMPLETE_FILE, f"{content_hash(text)}\n".encode())
    sync_folder(staging)


def checkpoint_path(run: Path, step: int) -> Path:
    """Where the checkpoint of ``step`` stands."""
    return run / CHECKPOINTS / f"step-{step}"


def complete_checkpoints(run: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first. A folder without its COMPLETE mark was never one."""
    found = [path for path in (run / CHECKPOINTS).glob("step-*") if (path / COMPLETE_FILE).is_file()]
    return sorted((path for path in found if step_of(path) is not None), key=lambda path: step_of(path) or 0)


def refuse_unmarked(run: Path) -> None:
    """Raise DataError for a ``step-N`` without its COMPLETE mark: a save renames only what has it, so it was lost."""
    for path in sorted((run / CHECKPOINTS).glob("step-*")):
        if step_of(path) is not None and not (path / COMPLETE_FILE).is_file():
            raise DataError(f"{path}: damaged: its {COMPLETE_FILE} is missing; move the folder away")


def step_of(checkpoint: Path) -> int | None:
    """The step of ``step-N``; None for other names, such as a staging folder."""
    text = checkpoint.name.removeprefix("step-")
    return int(text) if text.isdigit() else None


def read_state(checkpoint: Path) -> RunState:
    """The state of a checkpoint, after every file has been compared with its hash.

    Raises DataError naming the file that is missing, damaged or too new: a damaged one is never skipped silently.
    """
    path = checkpoint / STATE_FILE
    hint = "move the folder away to resume from the one before"
    try:
        text = path.read_bytes()
        if content_hash(text) != (checkpoint / COMPLETE_FILE).read_text().strip():
            raise DataError(f"{path}: damaged: its hash differs from {COMPLETE_FILE}; {hint}")
        fields = json_text.loads(text)
        if fields.pop("format") != FORMAT or fields.pop("version") > VERSION:
            raise DataError(f"{path}: written by a newer vlm-mix; use that one")
        for file in fields.pop("files"):
            _check_file(checkpoint, CheckpointFile(**file), hint)
        return RunState(**fields)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: damaged: {error}; {hint}") from error


def checkpoint_tensors(
    module: "nn.Module", optimizer: "Optimizer | None", *, only_trainable: bool = False
) -> dict[str, Any]:
    """What a checkpoint holds: weights, and the optimizer's state without its settings: today's TOML has those.

    ``only_trainable`` leaves frozen weights out, for runs that name their base by content. All ranks must call it.
    """
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_model_state_dict,
        get_optimizer_state_dict,
    )

    options = StateDictOptions(ignore_frozen_params=only_trainable)
    tensors: dict[str, Any] = {"model": get_model_state_dict(module, options=options)}
    if optimizer is not None:
        tensors["optimizer"] = {"state": get_optimizer_state_dict(module, optimizer)["state"]}
    return tensors


def load_tensors(
    checkpoint: Path,
    *,
    module: "nn.Module",
    optimizer: "Optimizer | None" = None,
    only_trainable: bool = False,
    ranks: Ranks = ALONE,
) -> None:
    """Fill the module, and the optimizer where one is given, from a checkpoint that ``read_state`` has checked.

    Raises ConfigError when the checkpoint holds other weights, or state of other trainable parameters.
    """
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_optimizer_state_dict,
        set_model_state_dict,
        set_optimizer_state_dict,
    )
    from torch.distributed.checkpoint.state_dict_loader import load

    state = checkpoint_tensors(module, optimizer, only_trainable=only_trainable)
    _refuse_other_tensors(checkpoint, state)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        load(state, checkpoint_id=checkpoint, no_dist=ranks.is_alone)
    set_model_state_dict(module, state["model"], options=StateDictOptions(strict=not only_trainable))
    if optimizer is not None:
        settings = get_optimizer_state_dict(module, optimizer)["param_groups"]
        set_optimizer_state_dict(module, optimizer, {**state["optimizer"], "param_groups": settings})


def _refuse_other_tensors(checkpoint: Path, state: Mapping[str, Any]) -> None:
    """Compare names and shapes: loading would take what fits and leave the rest as it is."""
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    stored = FileSystemReader(checkpoint).read_metadata().state_dict_metadata
    saved = {name: tuple(one.size) for name, one in stored.items() if isinstance(one, TensorStorageMetadata)}
    asked = {f"model.{name}": tuple(value.shape) for name, value in state["model"].items()}
    _refuse_difference(
        checkpoint, "model.", saved, asked, "weights of another model; set policy.model_name_or_path back"
    )
    if "optimizer" in state:
        moments = state["optimizer"]["state"]
        asked = {f"optimizer.state.{name}.exp_avg": tuple(value["exp_avg"].shape) for name, value in moments.items()}
        saved = {name: size for name, size in saved.items() if name.endswith(".exp_avg")}
        _refuse_difference(
            checkpoint,
            "optimizer.state.",
            saved,
            asked,
            "other trainable parameters; set train_layers, freeze_pattern, trainable_pattern and trainable_map back",
        )


def _refuse_difference(
    checkpoint: Path,
    prefix: str,
    saved: Mapping[str, tuple[int, ...]],
    asked: Mapping[str, tuple[int, ...]],
    problem: str,
) -> None:
    saved = {name: size for name, size in saved.items() if name.startswith(prefix)}
    differ = sorted(name for name in {*saved, *asked} if saved.get(name) != asked.get(name))
    if differ:
        named = ", ".join(name.removeprefix(prefix).removesuffix(".exp_avg") for name in differ[:3])
        raise ConfigError(f"{checkpoint}: holds {problem}; {len(differ)} differ: {named}{' ...' * (len(differ) > 3)}")


def _save_tensors(folder: Path, tensors: Mapping[str, Any], ranks: Ranks) -> None:
    """Write the tensors, synced. Raises OSError."""
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict_saver import save

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        try:
            save(dict(tensors), checkpoint_id=folder, no_dist=ranks.is_alone, process_group=ranks.group)
        except CheckpointException as error:  # no Exception: it would pass every handler of ours
            causes = [cause for cause, _ in error.failures.values()]
            raise OSError("; ".join(f"{type(cause).__name__}: {cause}" for cause in causes)) from error


def _describe(path: Path) -> CheckpointFile:
    return CheckpointFile(name=path.name, bytes=path.stat().st_size, xxh3_128=file_hash(path))


def _check_file(checkpoint: Path, file: CheckpointFile, hint: str) -> None:
    path = checkpoint / file.name
    if not path.is_file():
        raise DataError(f"{path}: missing, so this checkpoint is damaged; {hint}")
    size = path.stat().st_size
    if size != file.bytes:
        raise DataError(f"{path}: damaged: {size:,} bytes, {file.bytes:,} were written; {hint}")
    if file_hash(path) != file.xxh3_128:
        raise DataError(f"{path}: damaged: its content differs from what was written (xxh3_128); {hint}")


def remove_oldest(run: Path, max_keep: int, pinned: Collection[Path] = ()) -> None:
    """Remove the oldest whole checkpoints of a run beyond ``max_keep``, but for the best one and those ``pinned``."""
    if max_keep < 0:
        return
    found = complete_checkpoints(run)
    best = best_checkpoint(found)
    for path in found[: -max(1, max_keep)]:
        if path != best and path not in pinned:
            gone = path.with_name(f"{path.name}.tmp")  # renamed first, so that a kill leaves no half of a checkpoint
            path.rename(gone)
            shutil.rmtree(gone)


def best_checkpoint(checkpoints: Sequence[Path]) -> Path | None:
    """The one with the lowest held-out loss, the first of several; None where none was measured."""
    losses = {path: _validation_loss(path) for path in checkpoints}
    measured = {path: loss for path, loss in losses.items() if loss is not None}
    return min(measured, key=lambda path: measured[path], default=None)


def _validation_loss(checkpoint: Path) -> float | None:
    """As state.json says; a damaged one, which resume refuses, says nothing."""
    try:
        loss = json_text.loads((checkpoint / STATE_FILE).read_bytes()).get("validation_loss")
    except (OSError, ValueError):
        return None
    return loss if isinstance(loss, float) else None
