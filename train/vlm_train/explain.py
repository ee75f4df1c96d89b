"""What was in a step, and which sample did it: metrics, epoch table, sample losses and the mix's index, joined."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlm_catalogs.config import Config, load_config
from vlm_catalogs.console import fact, note, result
from vlm_catalogs.errors import ConfigError, DataError
from vlm_train.epoch_files import refuse_damage
from vlm_train.metrics import METRICS_FILE, finite_or_null, read_metrics
from vlm_train.open_mix import open_version
from vlm_train.sample_loss import read_losses
from vlm_train.spikes import SPIKE_MADS, spike_steps
from vlm_train.start import CONFIG_FILE, mix_of_run

OF_EVERY_STEP = ("step", "epoch", "epoch_step", "train/loss", "train/grad_norm")
NUMBERS = ("train/loss", "train/grad_norm")
"""What metrics.jsonl says as null where it is not finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedSample:
    """One sample of a step."""

    dataset: str
    sample_id: str
    alternative: int
    row: int
    position: int
    tokens: int
    supervised_tokens: int
    loss: float | None
    """Mean over its supervised tokens; None where it was not logged or has none."""
    loss_share: float | None
    """Its part of the step's loss."""
    source: str
    """Tar or file, and the member in it."""
    part: str
    shard: int
    index_in_shard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedStep:
    """One step, its samples with the highest loss first."""

    step: int
    epoch: int
    epoch_step: int
    loss: float
    grad_norm: float
    samples: tuple[ExplainedSample, ...]


def explain_run(run: Path, *, step: int | None, spikes: bool, as_json: bool, sheet: Path | None = None) -> int:
    """Print the samples of ``step``, or of every spike, and write them to ``sheet``; the exit code."""
    from vlm_catalogs import json_text

    lines = steps_of_run(run)
    wanted = spike_steps([line["train/loss"] for line in lines]) if spikes else [_place_of(run, lines, step)]
    explained = [explain_step(run, lines[place]) for place in wanted]
    if sheet is not None:
        _write_sheet(sheet, run, explained)
    if as_json:
        result(json_text.dumps([finite_or_null(asdict(one)) for one in explained]))
        return 0
    if not explained:
        note(f"{len(lines)} steps, none over the running median by {SPIKE_MADS:g} MAD")
    for one in explained:
        result("\n".join(_lines(one)))
    return 0


def _write_sheet(sheet: Path, run: Path, explained: Sequence[ExplainedStep]) -> None:
    from vlm_train.explain_sheet import write_sheet
    from vlm_train.open_store import open_for_few

    config = load_config(run / CONFIG_FILE)
    write_sheet(sheet, run, explained, open_for_few(config, open_version(config, mix_of_run(run))))
    fact(f"picture sheet: {sheet}")


def steps_of_run(run: Path) -> list[dict[str, Any]]:
    """The metrics of each step in order, of its latest attempt. Raises ConfigError for no run, else DataError."""
    path = run / METRICS_FILE
    if not path.is_file():
        raise ConfigError(f"{run}: no {METRICS_FILE} in it; is it the output_dir of a run?")
    latest: dict[int, dict[str, Any]] = {}
    lines = read_metrics(path)
    for number, line in enumerate(lines, start=1):
        if missing := [name for name in OF_EVERY_STEP if name not in line]:
            raise DataError(f"{path}:{number}: not a line of metrics: no {', '.join(missing)}; move the file away")
    for line in sorted(lines, key=lambda one: one.get("attempt", 1)):
        latest[line["step"]] = {**line, **{name: math.nan for name in NUMBERS if line.get(name, 0.0) is None}}
    return [latest[step] for step in sorted(latest)]


def explain_step(run: Path, line: Mapping[str, Any]) -> ExplainedStep:
    """The step of one line of metrics. Raises DataError where the run or its mix lacks what it needs."""
    epoch, epoch_step = int(line["epoch"]), int(line["epoch_step"])
    config = load_config(run / CONFIG_FILE)
    rows = [row for row in step_table(run, epoch, epoch_step).to_pylist() if row["status"] != "empty"]
    losses = _losses(run, epoch, epoch_step)
    origins = _origins(config, mix_of_run(run), rows)
    total = sum(loss for loss, _ in losses.values()) or None
    samples = [_explained(row, losses, origins, total) for row in rows]
    return ExplainedStep(
        step=line["step"],
        epoch=epoch,
        epoch_step=epoch_step,
        loss=line["train/loss"],
        grad_norm=line["train/grad_norm"],
        samples=tuple(sorted(samples, key=_worst_first)),
    )


def _worst_first(sample: ExplainedSample) -> tuple[float, int, int]:
    """Not-a-number counts as worst, no loss as best."""
    loss = math.inf if sample.loss is not None and math.isnan(sample.loss) else sample.loss
    return (math.inf if loss is None else -loss, sample.row, sample.position)


def _place_of(run: Path, lines: Sequence[Mapping[str, Any]], step: int | None) -> int:
    places = {line["step"]: place for place, line in enumerate(lines)}
    if step not in places:
        known = f"{min(places)} to {max(places)}" if places else "none yet"
        raise ConfigError(f"{run}: no step {step} in its metrics; there are {known}")
    return places[step]


def step_table(run: Path, epoch: int, epoch_step: int) -> pa.Table:
    """The rows of the epoch table of one step. Raises DataError where there is no table or it is damaged."""
    folder = run / "epochs" / f"epoch-{epoch:05d}"
    parts = sorted(folder.glob("part-*.parquet"))
    if not parts:
        raise DataError(f"{folder}: no epoch table, so nothing is known of its batches")
    for path in parts:
        refuse_damage(path)
    return pa.concat_tables([pq.read_table(path, filters=[("step", "=", epoch_step)]) for path in parts])


def _losses(run: Path, epoch: int, epoch_step: int) -> dict[tuple[int, int], tuple[float, int]]:
    """(row, position) -> (sum of the loss, supervised tokens), of the latest attempt."""
    found: dict[tuple[int, int], tuple[float, int]] = {}
    filters = [("epoch", "=", epoch), ("step", "=", epoch_step)]
    paths = sorted((run / "sample_loss").glob("rank-*/part-*.parquet"))
    tables = [read_losses(path, filters=filters) for path in paths]
    lines = [line for table in tables for line in table.to_pylist()]
    for line in sorted(lines, key=lambda one: one["attempt"]):
        found[line["row"], line["position"]] = (line["loss_sum"], line["supervised_tokens"])
    return found


def _origins(config: Config, mix: str, rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    """(dataset, sample id) -> tar or file and member, from the index of the mix that the run pinned."""
    opened = open_version(config, mix)
    origins = {}
    for dataset, part in sorted({(row["dataset"], row["part"]) for row in rows}):
        path = opened.samples_table(dataset, part)
        ids = [row["sample_id"] for row in rows if (row["dataset"], row["part"]) == (dataset, part)]
        columns = ["sample_id", "source_uri", "member"]
        try:
            table = pq.read_table(path, columns=columns, filters=[("sample_id", "in", ids)])
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path}: cannot be read: {error}; vlm-prep verify says what else is damaged") from error
        for one in table.to_pylist():
            origins[dataset, one["sample_id"]] = f"{one['source_uri']} {one['member'] or ''}".strip()
    return origins


def _explained(
    row: Mapping[str, Any],
    losses: Mapping[tuple[int, int], tuple[float, int]],
    origins: Mapping[tuple[str, str], str],
    total: float | None,
) -> ExplainedSample:
    loss_sum, supervised = losses.get((row["row"], row["position"]), (None, 0))
    return ExplainedSample(
        **{name: row[name] for name in ("dataset", "sample_id", "alternative", "row", "position", "tokens")},
        **{name: row[name] for name in ("supervised_tokens", "part", "shard", "index_in_shard")},
        loss=loss_sum / supervised if loss_sum is not None and supervised else None,
        loss_share=loss_sum / total if loss_sum is not None and total else None,
        source=origins.get((row["dataset"], row["sample_id"]), "not in the index"),
    )


def _lines(step: ExplainedStep) -> list[str]:
    head = f"step {step.step} (epoch {step.epoch}, its step {step.epoch_step}): loss {step.loss:.4f}, "
    lines = [f"{head}gradient norm {step.grad_norm:.3f}, {len(step.samples)} samples, highest loss first"]
    for one in step.samples:
        loss = "no loss" if one.loss is None else f"loss {one.loss:.4f}"
        share = "" if one.loss_share is None else f" ({one.loss_share:.0%} of the step)"
        lines.append(
            f"  {loss}{share}  {one.dataset}/{one.sample_id}  {one.tokens:,} tokens, {one.supervised_tokens:,} "
            f"supervised, row {one.row}.{one.position}\n"
            f"      {one.source}  (part {one.part}, shard {one.shard}, sample {one.index_in_shard})"
        )
    return lines
