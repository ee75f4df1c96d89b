"""``vlm-train plan``: every epoch of a run planned at once, written where the run will look, and told in numbers."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlm_catalogs import json_text
from vlm_catalogs.config import Config
from vlm_catalogs.console import Progress, result
from vlm_catalogs.errors import ConfigError
from vlm_catalogs.layout import PartRecord, read_part
from vlm_catalogs.manifest import MixDataset
from vlm_catalogs.text_table import text_table
from vlm_train.draws import DatasetToDraw
from vlm_train.epoch import EpochPart, plan_parts
from vlm_train.epoch_files import EpochFiles, written_parts
from vlm_train.fetch_plan import Numbers, ShardLines
from vlm_train.heaviest import HeaviestSteps, MicroBatch
from vlm_train.open_mix import OpenMix, datasets_to_draw, load_renderers, open_mix
from vlm_train.open_store import steps_ahead
from vlm_train.plan_facts import Drawn, EpochCounter, EpochFacts, RunShape
from vlm_train.rank_rows import equal_nodes, row_sharing
from vlm_train.ranks import parallelism_of, share_ranks
from vlm_train.run_plan import RunPlan, plan_run
from vlm_train.shard_pieces import PARTS_IN_MEMORY, ShardPieces
from vlm_train.start import claim_for_plan, plan_fingerprint, rows_of_run

if TYPE_CHECKING:
    from vlm_train.memory_plan import MemoryPlan

TOO_LONG = "longer_than_model_max_length"
MEGABYTE = 1e6
EPOCHS_SHOWN = 10
"""Lines of the table of epochs, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthPolicyFacts:
    """What the length policy did to the samples of one dataset."""

    dropped: int
    """Left out, because they are longer than a row."""
    shortened: int
    """In use, with smaller media or less text."""
    tokens_before: int
    """Of the shortened ones, in all."""
    tokens_after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetPlan:
    """What the planned epochs take from one dataset, beside what was asked."""

    name: str
    asked_share: float
    drawn: Drawn
    share_of_samples: float
    share_of_tokens: float
    selected: int
    repeats_per_epoch: float
    """Draws over selected samples."""
    length_policy: LengthPolicyFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """What ``vlm-train plan`` says."""

    mix: str
    epochs_folder: str | None
    """None where nothing was written."""
    rows_per_step: int
    rows_per_rank: int
    mini_batch: int
    ranks: int
    nodes: int
    steps: int
    """Of the run: its epochs end it, or max_num_steps."""
    model_max_length: int
    sequence_packing: bool
    weight_unit: str
    epochs: tuple[EpochFacts, ...]
    datasets: tuple[DatasetPlan, ...]
    memory: "MemoryPlan"
    """Of the rank that needs most."""
    heaviest: tuple[MicroBatch, ...]
    """The micro-batches with most tokens and with most patches."""


def plan_config(config: Config, *, num_ranks: int, num_nodes: int, writes: bool, as_json: bool) -> int:
    """Plan the epochs of ``config`` for so many ranks and print what they hold; the exit code.

    Raises ConfigError, after it has printed, for a ``cache_limit`` below the working set.
    """
    nodes = equal_nodes(num_ranks=num_ranks, num_nodes=num_nodes)
    mix = open_mix(config)
    load_renderers(config, mix)  # would the run encode as was measured?
    datasets = datasets_to_draw(mix)
    plan = plan_run(config, datasets, num_ranks=num_ranks, known_rows=rows_of_run(config, resume=True))
    rows = plan.order.rows_per_step
    if writes:
        claim_for_plan(config, plan_fingerprint(config, mix.manifest, rows_per_step=rows))
    shape = RunShape(
        sharing=row_sharing(plan.order, nodes=nodes, fetched=mix.remote),
        mini_batch=plan.mini_batch,
        pack_tokens=plan.order.pack_tokens,
        steps_ahead=steps_ahead(config, rows_per_step=rows, num_ranks=num_ranks),
    )
    heaviest = HeaviestSteps(sharing=shape.sharing, mini_batch=plan.mini_batch)
    epochs = tuple(_planned_epochs(config, mix, datasets, plan, shape, heaviest, writes=writes))
    report = _report(config, mix, plan, shape, epochs, heaviest, writes=writes)
    result(json_text.dumps(asdict(report)) if as_json else "\n".join(_lines(report, plan)))
    _check_cache(config, mix, epochs)
    return 0


def _planned_epochs(
    config: Config,
    mix: OpenMix,
    datasets: Sequence[DatasetToDraw],
    plan: RunPlan,
    shape: RunShape,
    heaviest: HeaviestSteps,
    *,
    writes: bool,
) -> Iterator[EpochFacts]:
    """The facts of each epoch that the run begins."""
    extents = _Extents(mix, by_range=config.stream.fetch == "ranges")
    steps = 0
    with Progress("plan") as progress:
        for epoch in range(plan.epochs):
            counter = EpochCounter(epoch, shape, extents)
            for part in _parts(config, datasets, plan, epoch, writes=writes):
                counter.add(part.table)
                heaviest.add(epoch, part.table)
                progress.advance(part.table.num_rows)
            facts = counter.facts()
            yield facts
            steps += facts.steps
            if plan.ends_by_steps and steps >= plan.total_steps:
                return


def _parts(
    config: Config, datasets: Sequence[DatasetToDraw], plan: RunPlan, epoch: int, *, writes: bool
) -> Iterator[EpochPart]:
    planned = partial(plan_parts, datasets, epoch=epoch, order=plan.order)
    if not writes:
        return planned()
    return written_parts(EpochFiles(Path(config.train.output_dir), epoch, plan=planned))


class _Extents:
    """Which bytes lines read: of shards in an object store as the run fetches them, of others the whole shard."""

    def __init__(self, mix: OpenMix, *, by_range: bool) -> None:
        self._mix = mix
        self._pieces = ShardPieces(mix, by_range=by_range) if by_range and mix.remote else None
        self._record = lru_cache(PARTS_IN_MEMORY)(self._read_record)

    def __call__(self, lines: ShardLines) -> tuple[Sequence[Hashable], Sequence[int], Numbers]:
        """See ``plan_facts.Extents``."""
        sizes = [self._record(key.dataset, key.part).shards[key.shard].bytes for key in lines.keys]
        names: list[Hashable] = list(lines.keys)
        if self._pieces is None:
            return names, sizes, lines.shards
        is_remote = np.asarray([key.dataset in self._mix.remote for key in lines.keys], bool)[lines.shards]
        pieces, of_lines = self._pieces.of_lines(lines.only(is_remote))
        numbers = lines.shards.copy()
        numbers[is_remote] = of_lines + len(names)
        return [*names, *(one.name for one in pieces)], [*sizes, *(one.num_bytes for one in pieces)], numbers

    def _read_record(self, dataset: str, part: str) -> PartRecord:
        return read_part(self._mix.part(dataset, part))


def _report(
    config: Config,
    mix: OpenMix,
    plan: RunPlan,
    shape: RunShape,
    epochs: tuple[EpochFacts, ...],
    heaviest: HeaviestSteps,
    *,
    writes: bool,
) -> PlanReport:
    from vlm_train.memory_plan import plan_memory
    from vlm_train.models.meta_model import meta_module

    batches = tuple(one for one in (heaviest.most_tokens, heaviest.most_patches) if one)
    _, num_shards = share_ranks(*parallelism_of(config), size=shape.sharing.num_ranks)
    steps = sum(one.steps for one in epochs)
    return PlanReport(
        mix=mix.place,
        epochs_folder=str(Path(config.train.output_dir) / "epochs") if writes else None,
        rows_per_step=shape.sharing.rows_per_step,
        rows_per_rank=shape.sharing.rows_per_step // shape.sharing.num_ranks,
        mini_batch=shape.mini_batch,
        ranks=shape.sharing.num_ranks,
        nodes=len(shape.sharing.nodes),
        steps=min(steps, plan.total_steps) if plan.ends_by_steps else steps,
        model_max_length=config.policy.model_max_length,
        sequence_packing=config.train.sequence_packing,
        weight_unit=mix.manifest.weight_unit,
        epochs=epochs,
        datasets=tuple(_dataset_plans(mix, epochs)),
        memory=plan_memory(config, meta_module(config)[0], batches, num_shards=num_shards),
        heaviest=batches,
    )


def _dataset_plans(mix: OpenMix, epochs: Sequence[EpochFacts]) -> Iterator[DatasetPlan]:
    selection = mix.selection()
    total = sum((drawn for one in epochs for drawn in one.datasets.values()), Drawn())
    for dataset in mix.manifest.datasets:
        drawn = sum((one.datasets.get(dataset.name, Drawn()) for one in epochs), Drawn())
        yield DatasetPlan(
            name=dataset.name,
            asked_share=dataset.share,
            drawn=drawn,
            share_of_samples=drawn.samples / max(1, total.samples),
            share_of_tokens=drawn.tokens / max(1, total.tokens),
            selected=dataset.num_selected,
            repeats_per_epoch=drawn.samples / max(1, dataset.num_selected) / len(epochs),
            length_policy=_length_policy_facts(selection, dataset),
        )


def _length_policy_facts(selection: pa.Table, dataset: MixDataset) -> LengthPolicyFacts:
    samples = selection.filter(pc.equal(selection["dataset"], dataset.name))
    dropped = pc.sum(pc.equal(samples["reason"], TOO_LONG)).as_py() or 0
    if "full_tokens" not in samples.column_names:  # a mix from before there were other policies than to drop
        return LengthPolicyFacts(dropped=dropped, shortened=0, tokens_before=0, tokens_after=0)
    short = samples.filter(pc.and_(samples["selected"], pc.greater(samples["full_tokens"], samples["total_tokens"])))
    before, after = (pc.sum(short[name]).as_py() or 0 for name in ("full_tokens", "total_tokens"))
    return LengthPolicyFacts(dropped=dropped, shortened=short.num_rows, tokens_before=before, tokens_after=after)


def _check_cache(config: Config, mix: OpenMix, epochs: Sequence[EpochFacts]) -> None:
    needed = max(one.working_set_bytes for one in epochs)
    if mix.remote and config.stream.cache_limit is not None and needed > config.stream.cache_limit:
        raise ConfigError(
            f"{config.where('stream.cache_limit')}: [stream] cache_limit: a node has up to {needed:,} bytes of shards "
            f"in use at a time; set cache_limit = {needed} or more"
        )


def _lines(report: PlanReport, plan: RunPlan) -> Iterator[str]:
    yield f"mix: {report.mix}"
    yield f"plan: {plan.describe()}"
    yield (
        f"rows: {report.rows_per_step} a step, {report.rows_per_rank} for each of {report.ranks} ranks on "
        f"{report.nodes} nodes, {report.mini_batch} to a micro-batch; up to {report.model_max_length:,} tokens "
        + ("of several samples" if report.sequence_packing else "of one sample")
    )
    yield f"steps: {report.steps:,} in {len(report.epochs)} epochs"
    yield ""
    shown = report.epochs if len(report.epochs) <= EPOCHS_SHOWN else report.epochs[: EPOCHS_SHOWN - 1]
    yield text_table(EPOCH_HEAD, [_epoch_row(one) for one in shown])
    if len(shown) < len(report.epochs):
        yield f"and {len(report.epochs) - len(shown):,} more epochs; --json has them all"
    yield ""
    yield text_table(
        [*DATASET_HEAD[:1], f"asked ({report.weight_unit})", *DATASET_HEAD[1:]],
        [_dataset_row(one) for one in report.datasets],
    )
    yield ""
    yield from _memory_lines(report)
    where = report.epochs_folder
    yield f"epoch tables: {where}" if where else "epoch tables: not written"


def _memory_lines(report: PlanReport) -> Iterator[str]:
    memory = report.memory
    parts = ("weights", "gradients", "optimizer", "activations", "recomputed", "logits")
    named = ", ".join(f"{name} {getattr(memory, name) / MEGABYTE:,.1f}" for name in parts)
    yield f"memory of a rank, MB: about {memory.total / MEGABYTE:,.1f} ({named}); activations are an estimate"
    for one, why in zip(report.heaviest, ("tokens", "patches"), strict=False):
        yield (
            f"most {why} at once: {one.padded_tokens:,} tokens and {one.patches:,} patches, in step {one.epoch_step} "
            f"of epoch {one.epoch} on rank {one.rank}"
        )
    yield f"a checkpoint: {memory.checkpoint / MEGABYTE:,.1f} MB"


EPOCH_HEAD = (
    "epoch", "steps", "rows", "empty", "samples", "tokens", "samples/step", "row fill", "padding",
    "shards/100 steps", "working set MB", "MB/node",
)  # fmt: skip
DATASET_HEAD = (
    "dataset", "of samples", "of tokens", "samples", "tokens", "selected", "repeats", "too long", "shortened",
    "tokens cut",
)  # fmt: skip


def _epoch_row(one: EpochFacts) -> list[str]:
    return [
        str(one.epoch),
        f"{one.steps:,}",
        f"{one.rows:,}",
        f"{one.empty_rows:,}",
        f"{one.samples:,}",
        f"{one.tokens:,}",
        f"{one.samples_per_step:,.1f}",
        "-" if one.row_fill is None else f"{one.row_fill:.2%}",
        f"{one.padding_share:.2%}",
        f"{one.shards_per_100_steps:,.1f}",
        f"{one.working_set_bytes / MEGABYTE:,.1f}",
        f"{one.bytes_per_node / MEGABYTE:,.1f}",
    ]


def _dataset_row(one: DatasetPlan) -> list[str]:
    policy = one.length_policy
    return [
        one.name,
        f"{one.asked_share:.3%}",
        f"{one.share_of_samples:.3%}",
        f"{one.share_of_tokens:.3%}",
        f"{one.drawn.samples:,}",
        f"{one.drawn.tokens:,}",
        f"{one.selected:,}",
        f"{one.repeats_per_epoch:,.3f}",
        f"{policy.dropped:,}",
        f"{policy.shortened:,}",
        f"{policy.tokens_before - policy.tokens_after:,}",
    ]
