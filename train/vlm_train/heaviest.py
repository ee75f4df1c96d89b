"""Which micro-batches of a run are the heaviest: most tokens with padding, most patches? Pure, from its tables."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from vlm_train.fetch_plan import Numbers
from vlm_train.planned_rows import NUM_EMPTY_TOKENS
from vlm_train.rank_rows import RowSharing, ranks_of_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """What one rank has in memory at once."""

    epoch: int
    epoch_step: int
    rank: int
    padded_tokens: int
    """Rows times the longest of them."""
    patches: int
    supervised_tokens: int


class HeaviestSteps:
    """Told of the parts of epochs, in any order."""

    def __init__(self, *, sharing: RowSharing, mini_batch: int) -> None:
        self._sharing, self._mini_batch = sharing, mini_batch
        self.most_tokens: MicroBatch | None = None
        self.most_patches: MicroBatch | None = None

    def add(self, epoch: int, table: pa.Table) -> None:
        """Take in a part: whole steps."""
        if table.num_rows == 0:
            return
        ranks = ranks_of_rows(table, sharing=self._sharing)
        order = np.argsort(ranks, axis=1, kind="stable")
        tokens, patches, supervised = (
            self._of_micro_batches(table, name, order) for name in ("tokens", "vision_patches", "supervised_tokens")
        )
        padded = np.maximum(tokens, NUM_EMPTY_TOKENS).max(axis=1) * self._mini_batch
        first = int(table["step"][0].as_py())
        by_patches, by_labels = patches.sum(axis=1), supervised.sum(axis=1)

        def at(place: int) -> MicroBatch:
            step, within = divmod(place * self._mini_batch, self._sharing.rows_per_step)
            return MicroBatch(
                epoch=epoch,
                epoch_step=first + step,
                rank=within // (self._sharing.rows_per_step // self._sharing.num_ranks),
                padded_tokens=int(padded[place]),
                patches=int(by_patches[place]),
                supervised_tokens=int(by_labels[place]),
            )

        longest, fullest = at(int(padded.argmax())), at(int(by_patches.argmax()))
        if self.most_tokens is None or longest.padded_tokens > self.most_tokens.padded_tokens:
            self.most_tokens = longest
        if self.most_patches is None or fullest.patches > self.most_patches.patches:
            self.most_patches = fullest

    def _of_micro_batches(self, table: pa.Table, name: str, order: Numbers) -> Numbers:
        """The sums of each row, (micro-batches, rows of one), rank after rank in each step."""
        steps, rows, values = (table[one].to_numpy().astype(np.int64) for one in ("step", "row", name))
        places = (steps - steps[0]) * self._sharing.rows_per_step + rows
        sums = np.bincount(places, weights=values, minlength=order.size).astype(np.int64).reshape(order.shape)
        found: Numbers = np.take_along_axis(sums, order, axis=1).reshape(-1, self._mini_batch)
        return found
