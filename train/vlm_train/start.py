"""How a run begins: in a fresh output_dir, or from a checkpoint of the same run; what a resumed run may not change."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomli

from vlm_catalogs import json_text
from vlm_catalogs.config import Config
from vlm_catalogs.errors import ConfigError, DataError, StorageError
from vlm_catalogs.manifest import Manifest
from vlm_train.checkpoint import CHECKPOINTS, RunState, complete_checkpoints, read_state, refuse_unmarked, step_of
from vlm_train.epoch import PLANNER_VERSION
from vlm_train.metrics import METRICS_FILE, VALIDATION_FILE

FINGERPRINT_FILE = "fingerprint.json"
CONFIG_FILE = "config.toml"
ROWS_PER_STEP = "rows per step"
PLANNED = "planned"
"""Key of fingerprint.json where vlm-train plan wrote it and nothing has trained yet."""
BASE_WEIGHTS = "base weights"
"""Key of the fingerprint of a LoRA run: its checkpoints hold the adapters only."""
OURS = (
    CONFIG_FILE,
    FINGERPRINT_FILE,
    METRICS_FILE,
    VALIDATION_FILE,
    CHECKPOINTS,
    "epochs",
    "sample_loss",
    "safetensors",
    "adapters",
)
"""What a run leaves in its output_dir; any of them marks it as used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where a run begins."""

    output_dir: Path
    checkpoint: Path | None
    """None: from the model's own weights, at step 0."""
    state: RunState | None
    note: str
    """For people: what was found and decided."""


def run_fingerprint(config: Config, manifest: Manifest, *, rows_per_step: int) -> dict[str, Any]:
    """What a resumed run must not change (semantics C6), by the names that the refusal uses."""
    return {**_adapter_fingerprint(config), **plan_fingerprint(config, manifest, rows_per_step=rows_per_step)}


def plan_fingerprint(config: Config, manifest: Manifest, *, rows_per_step: int) -> dict[str, Any]:
    """What of it the epoch tables depend on, and the seed of the run."""
    policy = config.train.train_policy
    return {
        "mix": manifest.fingerprint,
        "encoding": manifest.encoding.fingerprint,
        "policy.model_max_length": config.policy.model_max_length,
        "train.sequence_packing": config.train.sequence_packing,
        "mix.length_policy": manifest.length_policy,
        ROWS_PER_STEP: rows_per_step,
        "train.seed": config.train.seed or 0,
        "train.train_policy.dataloader_seed": policy.dataloader_seed,
        "train.train_policy.dataloader_shuffle": policy.dataloader_shuffle,
        "train.train_policy.dataloader_drop_last": policy.dataloader_drop_last,
        "planner version": PLANNER_VERSION,
    }


def _adapter_fingerprint(config: Config) -> dict[str, Any]:
    if config.policy.lora is None:
        return {}
    from vlm_train.lora import base_weights_hash

    base = base_weights_hash(config.policy.weights_name_or_path, revision=config.policy.weights_revision)
    return {"policy.lora": json_text.loads(json_text.dumps(asdict(config.policy.lora))), BASE_WEIGHTS: base}


def rows_of_run(config: Config, *, resume: bool) -> int | None:
    """The rows per step that the first start of a run, or its plan, settled: they hold for any ranks (semantics C1).

    None where there is neither to go on with, and where the TOML now asks for another batch: that is a change, which
    the fingerprints will name.
    """
    output_dir = Path(config.train.output_dir)
    first_config = output_dir / CONFIG_FILE
    if not ((output_dir / FINGERPRINT_FILE).exists() and first_config.exists()):
        return None
    if not (resume or is_only_planned(output_dir)):
        return None
    try:
        before = tomli.loads(first_config.read_text())["train"]["train_batch_per_replica"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{first_config}: damaged: {error!r}; put it back, or name another train.output_dir") from error
    if before != config.train.train_batch_per_replica:
        return None
    rows = _read_fingerprint(output_dir).get(ROWS_PER_STEP)
    return rows if isinstance(rows, int) else None


def mix_of_run(run: Path) -> str:
    """The fingerprint of the mix version that a run trains on. Raises DataError where the run does not say."""
    return str(_read_fingerprint(run).get("mix"))


def decide_start(config: Config, *, resume: bool, fingerprint: Mapping[str, Any]) -> Start:
    """Where the run begins. Changes nothing.

    Raises ConfigError for a used output_dir without ``resume`` and for a changed fingerprint, DataError for a damaged
    checkpoint: a run never restarts from the model's own weights by itself.
    """
    output_dir = Path(config.train.output_dir)
    used = [name for name in OURS if (output_dir / name).exists()]
    wanted = config.train.resume
    if output_dir.exists() and not output_dir.is_dir():
        raise ConfigError(f"{config.where('train.output_dir')}: train.output_dir: {output_dir} is not a folder")
    refuse_unmarked(output_dir)
    if isinstance(wanted, str) and wanted and not (resume and complete_checkpoints(output_dir)):
        if used:  # its epoch tables are read, so they must be those of the checkpoint
            _compare_with_run(output_dir, fingerprint)
        return _start_from(output_dir, checkpoint_at(Path(wanted)), fingerprint)
    if not used:
        note = f"{output_dir}: nothing to resume yet; starting at step 0" if resume or wanted else ""
        return Start(output_dir=output_dir, checkpoint=None, state=None, note=note)
    if is_only_planned(output_dir):
        _compare_with_run(output_dir, fingerprint)
        note = f"{output_dir}: vlm-train plan has written its epochs; starting at step 0"
        return Start(output_dir=output_dir, checkpoint=None, state=None, note=note)
    if not (resume or wanted):
        raise ConfigError(
            f"{output_dir}: holds a run already ({', '.join(used)}); continue it with --resume (or resume = true), "
            "or name another train.output_dir"
        )
    _compare_with_run(output_dir, fingerprint)
    checkpoints = complete_checkpoints(output_dir)
    if not checkpoints:
        note = f"{output_dir}: no checkpoint was ever completed; starting at step 0"
        return Start(output_dir=output_dir, checkpoint=None, state=None, note=note)
    return _start_from(output_dir, checkpoints[-1], fingerprint)


def is_only_planned(output_dir: Path) -> bool:
    """Has vlm-train plan been here, and nothing else?"""
    if any((output_dir / name).exists() for name in (METRICS_FILE, CHECKPOINTS)):
        return False  # a plan that began beside it must not hide a run
    return (output_dir / FINGERPRINT_FILE).exists() and bool(_read_run_file(output_dir).get(PLANNED))


def claim_for_plan(config: Config, fingerprint: Mapping[str, Any]) -> None:
    """Have ``train.output_dir`` say what its epochs are planned for, before they are written.

    Raises ConfigError where it holds a run or a plan of other settings, StorageError when it cannot be written.
    """
    output_dir = Path(config.train.output_dir)
    if (output_dir / FINGERPRINT_FILE).exists():
        _compare_with_run(output_dir, fingerprint)
        return
    used = [name for name in OURS if (output_dir / name).exists()]
    if used:
        raise ConfigError(
            f"{output_dir}: holds {', '.join(used)} and no {FINGERPRINT_FILE}; name another train.output_dir"
        )
    _write_run_files(config, output_dir, fingerprint, **{PLANNED: True})


def checkpoint_at(path: Path) -> Path:
    """The checkpoint that ``resume = path`` names: a checkpoint itself, or the newest of a run."""
    if step_of(path) is not None and path.is_dir():
        return path
    found = complete_checkpoints(path)
    if not found:
        raise ConfigError(f"train.resume: {path}: neither a checkpoint (step-N) nor a run with a complete one")
    return found[-1]


def refuse_private_folder(start: Start) -> None:
    """Raise StorageError on a rank that does not see what the first rank has written."""
    path = start.output_dir / FINGERPRINT_FILE
    if not path.exists():
        raise StorageError(f"{path}: not seen by every machine of the run; name a shared folder in train.output_dir")


def write_run_files(config: Config, start: Start, fingerprint: Mapping[str, Any]) -> None:
    """The resolved config, the fingerprint, the version and the git revision; what an earlier attempt wrote stays.

    Raises StorageError when the folder cannot be written.
    """
    _write_run_files(config, start.output_dir, fingerprint)


def _write_run_files(config: Config, output_dir: Path, fingerprint: Mapping[str, Any], **about: Any) -> None:
    path = output_dir / FINGERPRINT_FILE
    is_new = not path.exists() or is_only_planned(output_dir)
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        if is_new:
            about = {"version": version("vlm-mix"), "git_revision": git_revision(), **about}
            staged = path.with_name(f".{path.name}.tmp")
            staged.write_text(json_text.dumps_indented({**about, "fingerprint": dict(fingerprint)}))
            staged.replace(path)
        _write_config(config, output_dir, is_new=is_new)
    except OSError as error:
        raise StorageError(f"train.output_dir: {output_dir} cannot be written: {error}") from error


def _write_config(config: Config, output_dir: Path, *, is_new: bool) -> None:
    text = config.resolved_toml()
    path = output_dir / CONFIG_FILE
    attempt = 1
    while not is_new and path.exists() and path.read_text() != text:
        attempt += 1
        path = output_dir / f"config-{attempt}.toml"
    staged = path.with_name(f".{path.name}.tmp")
    staged.write_text(text)
    staged.replace(path)


def git_revision() -> str | None:
    """The revision of the code where git tracks it, with ``+changes`` when files differ from it."""
    # An installed copy is tracked by nobody, though git would answer for a repository around its environment.
    if _git_answer("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    return _git_answer("describe", "--always", "--abbrev=40", "--dirty=+changes")


def _git_answer(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None


def _start_from(output_dir: Path, checkpoint: Path, fingerprint: Mapping[str, Any]) -> Start:
    state = read_state(checkpoint)
    _compare_fingerprints(state.fingerprint, fingerprint, where=checkpoint)
    later = [path for path in complete_checkpoints(output_dir) if (step_of(path) or 0) > state.step]
    if later:
        raise ConfigError(
            f"{later[0]}: is later than the checkpoint to resume from ({checkpoint}); continue from the "
            "later one with --resume, or name another train.output_dir"
        )
    note = f"resuming from {checkpoint}: {state.step} steps done"
    return Start(output_dir=output_dir, checkpoint=checkpoint, state=state, note=note)


def _read_fingerprint(output_dir: Path) -> dict[str, Any]:
    return dict(_read_run_file(output_dir)["fingerprint"])


def _read_run_file(output_dir: Path) -> dict[str, Any]:
    """fingerprint.json. Raises DataError where it is missing or damaged."""
    path = output_dir / FINGERPRINT_FILE
    try:
        found = dict(json.loads(path.read_text()))
        return {**found, "fingerprint": dict(found["fingerprint"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no run can be resumed without it: {error}; name another train.output_dir") from error


def _compare_with_run(output_dir: Path, fingerprint: Mapping[str, Any]) -> None:
    """Raise ConfigError where ``output_dir`` holds a run or a plan of another fingerprint; a plan knows no adapters."""
    before = _read_fingerprint(output_dir)
    if not is_only_planned(output_dir):
        _compare_fingerprints(before, fingerprint, where=output_dir)
        return
    changed = _changes(before, {name: value for name, value in fingerprint.items() if name in before})
    if changed:
        raise ConfigError(
            f"{output_dir}: its epochs were planned with other settings, and nothing has trained on them:\n  "
            + "\n  ".join(changed)
            + "\nset it back, name another train.output_dir, or remove this one and plan again"
        )


def _compare_fingerprints(before: Mapping[str, Any], now: Mapping[str, Any], *, where: Path) -> None:
    changed = _changes(before, now)
    if changed:
        raise ConfigError(
            f"{where}: cannot be resumed, because the batches would not go on as they began:\n  "
            + "\n  ".join(changed)
            + "\nset it back, or start a new run in another train.output_dir"
        )


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Each entry that differs, by name, with both values."""
    return [
        f"{name}: it was {before.get(name)!r}, now it is {now.get(name)!r}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
