"""``vlm-train check --step``: the heaviest steps of a run's plan, taken for real, with their peak of memory."""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.compute as pc
import torch

from vlm_catalogs.config import Config
from vlm_catalogs.console import result
from vlm_train.draws import DatasetToDraw
from vlm_train.epoch import plan_parts
from vlm_train.gauges import peak_memory
from vlm_train.heaviest import HeaviestSteps, MicroBatch
from vlm_train.load import load_family_of, load_trainer
from vlm_train.local_ranks import ranks_to_start
from vlm_train.memory_plan import plan_memory
from vlm_train.open_mix import datasets_to_draw, load_renderers, open_mix
from vlm_train.open_store import open_for_few
from vlm_train.optimizer import set_lr
from vlm_train.planned_rows import planned_rows
from vlm_train.rank_rows import RowSharing, equal_nodes, row_sharing, rows_of_rank
from vlm_train.run_plan import RunPlan, plan_run
from vlm_train.start import rows_of_run
from vlm_train.stream import RowEncoder

MEGABYTE = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedStep:
    """What a step came to."""

    why: str
    batch: MicroBatch
    loss: float
    seconds: float
    peak_bytes: int


def try_steps(config: Config, *, num_ranks: int | None = None, num_nodes: int = 1) -> list[TriedStep]:
    """Take the steps with the heaviest micro-batches, as the rank that has them would, and print what they needed.

    One process, parameters whole, nothing is saved. The run has ``num_ranks`` (None: those of one started here) on
    ``num_nodes`` machines. Raises UserError as a run would.
    """
    mix = open_mix(config)
    datasets = datasets_to_draw(mix)
    num_ranks = num_ranks or ranks_to_start(config)
    nodes = equal_nodes(num_ranks=num_ranks, num_nodes=num_nodes)
    plan = plan_run(config, datasets, num_ranks=num_ranks, known_rows=rows_of_run(config, resume=True))
    sharing = row_sharing(plan.order, nodes=nodes, fetched=mix.remote)
    heaviest = heaviest_of_run(datasets, plan, sharing=sharing)
    wanted = {"most tokens": heaviest.most_tokens, "most patches": heaviest.most_patches}
    family = load_family_of(config)
    renderers = load_renderers(config, mix)
    with closing(open_for_few(config, mix)) as store:
        encoder = RowEncoder(store, family, renderers, max_bad_samples=config.stream.max_bad_samples)
        trainer, _ = load_trainer(config, family)
        set_lr(trainer.optimizer, 1.0)
        tried = []
        for why, batch in wanted.items():
            assert batch is not None  # an epoch has a step
            table = _table_of_step(datasets, plan, batch)
            lines = rows_of_rank(planned_rows(table), sharing=sharing, rank=batch.rank)
            rows = [encoder.encode(row).samples for row in lines]
            size = plan.mini_batch
            batches = [family.collate(rows[begin : begin + size]) for begin in range(0, len(rows), size)]
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            began = time.perf_counter()
            outcome = trainer.take_step(batches).result()
            seconds = time.perf_counter() - began
            tried.append(TriedStep(why=why, batch=batch, loss=outcome.loss, seconds=seconds, peak_bytes=peak_memory()))
    memory = plan_memory(config, trainer.module, wanted.values(), num_shards=1)
    for one in tried:
        result(describe(one))
    result(f"estimate: {memory.total / MEGABYTE:,.0f} MB, of which activations {memory.activations / MEGABYTE:,.0f} MB")
    return tried


def describe(one: TriedStep) -> str:
    """One line for people."""
    where = "of the GPU" if torch.cuda.is_available() else "resident in memory, with all libraries"
    found = asdict(one.batch)
    return (
        f"step {found['epoch_step']} of epoch {found['epoch']} ({one.why}): a micro-batch of "
        f"{found['padded_tokens']:,} tokens and {found['patches']:,} patches; {one.seconds:.2f} s, "
        f"peak {one.peak_bytes / MEGABYTE:,.0f} MB {where}"
    )


def heaviest_of_run(datasets: Sequence[DatasetToDraw], plan: RunPlan, *, sharing: RowSharing) -> HeaviestSteps:
    """The heaviest micro-batches of all epochs that the run begins."""
    heaviest = HeaviestSteps(sharing=sharing, mini_batch=plan.mini_batch)
    steps = 0
    for epoch in range(plan.epochs):
        for part in plan_parts(datasets, epoch=epoch, order=plan.order):
            heaviest.add(epoch, part.table)
            steps += len(pc.unique(part.table["step"]))
        if plan.ends_by_steps and steps >= plan.total_steps:
            break
    return heaviest


def _table_of_step(datasets: Sequence[DatasetToDraw], plan: RunPlan, batch: MicroBatch) -> pa.Table:
    for part in plan_parts(datasets, epoch=batch.epoch, order=plan.order):
        table = part.table.filter(pc.equal(part.table["step"], batch.epoch_step))
        if table.num_rows:
            return table
    raise AssertionError(f"no step {batch.epoch_step} in epoch {batch.epoch}")
