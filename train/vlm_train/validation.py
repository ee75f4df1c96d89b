"""The loss on the samples that the mix holds out: each once, unweighted, in the order of the sources; and answers.

Batches are cut before they are dealt to ranks, so that the numbers are the same for any number of ranks.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from vlm_catalogs.config import Config
from vlm_catalogs.errors import ConfigError
from vlm_catalogs.hashing import order_key
from vlm_catalogs.render import Renderer
from vlm_train.answers import Answer, answer_sample
from vlm_train.draws import DatasetToDraw
from vlm_train.loop import Trainer
from vlm_train.models.family import Batch, Family
from vlm_train.open_mix import OpenMix, held_out_datasets
from vlm_train.open_store import num_workers
from vlm_train.planned_rows import PlannedRow, empty_line
from vlm_train.ranks import Ranks
from vlm_train.sample_store import SampleStore
from vlm_train.step_result import SampleLoss
from vlm_train.stream import EncodedRow, RowEncoder, made_in_order, steps_of
from vlm_train.writer import Sampling

Line = tuple[PlannedRow]
"""A row of one sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationLoss:
    """What one validation came to."""

    loss: float | None
    """Mean over all supervised tokens; None where there is none, or a loss that is not finite."""
    by_dataset: dict[str, float]
    """Mean over the supervised tokens of each dataset that has any, all of them finite."""
    num_samples: int
    num_supervised_tokens: int
    not_finite: tuple[str, ...] = ()
    """``dataset/sample_id`` of samples whose loss is not finite."""
    undecodable: tuple[str, ...] = ()
    """Why samples were measured blank, without labels."""

    def metrics(self) -> dict[str, Any]:
        """As they stand in metrics.jsonl."""
        lists = {"validation/not_finite": self.not_finite, "validation/undecodable": self.undecodable}
        return {
            **({} if self.loss is None else {"validation/loss": self.loss}),
            **{f"validation/loss/{name}": loss for name, loss in self.by_dataset.items()},
            "validation/samples": self.num_samples,
            "validation/supervised_tokens": self.num_supervised_tokens,
            **{name: list(texts) for name, texts in lists.items() if texts},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """What one validation leaves; nothing where none was due."""

    metrics: Mapping[str, Any] = field(default_factory=dict)
    answers: tuple[Answer, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Measures the loss on the held-out samples, and lets the model answer a few of them."""

    rows: tuple[Line, ...]
    batch_size: int
    encoder: RowEncoder
    family: Family
    trainer: Trainer
    ranks: Ranks
    num_workers: int
    store: SampleStore
    renderers: Mapping[str, Renderer]
    to_answer: tuple[PlannedRow, ...]
    sampling: Sampling

    def measure(self, at: Callable[[str], None]) -> ValidationLoss:
        """The loss with the weights as they are; ``at`` is told of each batch. All ranks must call it."""
        problems: list[str] = []
        losses = self.trainer.measure(_told(self._batches(problems), at))
        return summarise(self.ranks.gather(losses), undecodable=self.ranks.gather(problems))

    def answers(self, at: Callable[[str], None]) -> tuple[Answer, ...]:
        """What the model answers to ``to_answer``, with the weights as they are; ``at`` is told of each.

        All ranks must call it.
        """
        mine = []
        for first in range(0, len(self.to_answer), self.ranks.size):
            at(f"answers from number {first + 1} on")
            number = first + self.ranks.rank
            # A rank without a sample of its own answers one all the same: forward passes are common to all.
            answer = self._answer(self.to_answer[number % len(self.to_answer)])
            mine += [(number, answer)] if number < len(self.to_answer) else []
        return tuple(answer for _, answer in sorted(self.ranks.gather(mine), key=itemgetter(0)))

    def _answer(self, row: PlannedRow) -> Answer:
        sample, renderer = self.store.read(row, aside=True), self.renderers[row.dataset]
        return answer_sample(
            sample,
            renderer.render(sample.conversation(0), sample.media_table),
            renderer=renderer,
            family=self.family,
            writer=self.trainer.writer(),
            how=self.sampling,
        )

    def _batches(self, problems: list[str]) -> Iterator[Batch]:
        """The batches of this rank; what did not decode goes to ``problems``."""
        mine = rows_of_rank(self.rows, batch_size=self.batch_size, rank=self.ranks.rank, num_ranks=self.ranks.size)
        batches = steps_of(mine, rows_per_step=self.batch_size)
        with closing(made_in_order(batches, self.encoder.encode, self._made, num_workers=self.num_workers)) as made:
            for batch, found in made:
                problems += found
                yield batch

    def _made(self, rows: list[EncodedRow]) -> tuple[Batch, list[str]]:
        batch = self.family.collate([row.samples for row in rows])
        return batch, [problem for row in rows for problem in row.problems]


def _told(batches: Iterator[Batch], at: Callable[[str], None]) -> Iterator[Batch]:
    for number, batch in enumerate(batches, start=1):
        at(f"batch {number} of the held-out samples")
        yield batch


def open_validation(
    config: Config,
    mix: OpenMix,
    *,
    store: SampleStore,
    renderers: Mapping[str, Renderer],
    family: Family,
    trainer: Trainer,
    ranks: Ranks,
) -> Validation | None:
    """What measures the held-out loss of a run; None where its TOML asks for none.

    Samples that do not decode are named and never stop a run, nor count towards ``max_bad_samples`` of training.
    """
    if not config.validation.enable:
        return None
    rows = held_out_rows(held_out_datasets(mix))
    return Validation(
        rows=rows,
        batch_size=config.validation.batch_size or config.train.train_policy.mini_batch,
        encoder=RowEncoder(store, family, renderers, max_bad_samples=len(rows), aside=True),
        family=family,
        trainer=trainer,
        ranks=ranks,
        num_workers=num_workers(config),
        store=store,
        renderers=renderers,
        to_answer=chosen_to_answer(rows, config.validation.generate, seed=config.train.seed or 0),
        sampling=Sampling(max_new_tokens=config.validation.max_response_length),
    )


def describe_held_out(config: Config, mix: OpenMix) -> str | None:
    """What is held out, for people; None where nothing is asked. Raises ConfigError when the mix holds nothing out."""
    if not config.validation.enable:
        return None
    counts = {dataset.name: dataset.samples.num_rows for dataset in held_out_datasets(mix)}
    if not counts:
        raise ConfigError(
            f"{config.where('validation.enable')}: validation.enable: the mix {mix.folder} holds no sample out; name a "
            "validation.dataset, set fraction or num_samples in [mix.select.eval], or test_size of the dataset, and "
            "build it again"
        )
    of_each = ", ".join(f"{count:,} of {name}" for name, count in counts.items())
    return f"validation: {sum(counts.values()):,} held-out samples ({of_each}), every {config.validation.freq} steps"


def is_due(config: Config, *, step: int, is_last: bool) -> bool:
    """True when the loss is measured after ``step`` steps (from 1): every ``freq``, and at the end."""
    return config.validation.enable and (is_last or step % config.validation.freq == 0)


def held_out_rows(datasets: Sequence[DatasetToDraw]) -> tuple[Line, ...]:
    """A row for each sample, with its first conversation."""
    return tuple((line,) for dataset in datasets for line in _lines(dataset))


def _lines(dataset: DatasetToDraw) -> Iterator[PlannedRow]:
    lengths = dataset.lengths.select(["sample_key", "alternative", "total_tokens", "supervised_tokens"])
    by_key = {one["sample_key"]: one for one in lengths.to_pylist() if one["alternative"] == 0}
    for number, sample in enumerate(dataset.samples.to_pylist()):
        length: dict[str, Any] = by_key[sample["sample_key"]]
        yield PlannedRow(
            step=0,
            row=number,
            position=0,
            alternative=0,
            tokens=length["total_tokens"],
            supervised_tokens=length["supervised_tokens"],
            status="planned",
            **{
                name: sample[name]
                for name in ("dataset", "sample_id", "sample_key", "part", "shard", "index_in_shard", "vision_patches")
            },
        )


def chosen_to_answer(rows: Sequence[Line], number: int, *, seed: int) -> tuple[PlannedRow, ...]:
    """``number`` of the held-out samples, the same at each validation, in their order."""
    by_key = sorted(range(len(rows)), key=lambda place: order_key(seed, "to answer", rows[place][0].sample_key))
    return tuple(rows[place][0] for place in sorted(by_key[:number]))


def rows_of_rank(rows: Sequence[Line], *, batch_size: int, rank: int, num_ranks: int) -> list[Line]:
    """The rows of one rank: every ``num_ranks``-th batch; empty rows make all ranks have as many whole batches."""
    num_batches = math.ceil(len(rows) / batch_size)
    per_rank = math.ceil(num_batches / num_ranks)
    mine = []
    for batch in range(rank, per_rank * num_ranks, num_ranks):
        found = list(rows[batch * batch_size : (batch + 1) * batch_size])
        mine += found + [(empty_line(),)] * (batch_size - len(found))
    return mine


def summarise(losses: Sequence[SampleLoss], *, undecodable: Sequence[str] = ()) -> ValidationLoss:
    """The means over supervised tokens. Sums are exact (``math.fsum``), so that their order does not matter."""
    by_name: dict[str, list[SampleLoss]] = {}
    for one in losses:
        by_name.setdefault(one.dataset, []).append(one)
    means = {name: _mean(of_dataset) for name, of_dataset in sorted(by_name.items())}
    return ValidationLoss(
        loss=_mean(losses),
        by_dataset={name: mean for name, mean in means.items() if mean is not None},
        num_samples=len(losses),
        num_supervised_tokens=sum(one.num_supervised_tokens for one in losses),
        not_finite=tuple(f"{one.dataset}/{one.sample_id}" for one in losses if not math.isfinite(one.loss_sum)),
        undecodable=tuple(undecodable),
    )


def _mean(losses: Sequence[SampleLoss]) -> float | None:
    tokens = sum(one.num_supervised_tokens for one in losses)
    if not tokens or not all(math.isfinite(one.loss_sum) for one in losses):
        return None
    return math.fsum(one.loss_sum for one in losses) / tokens
