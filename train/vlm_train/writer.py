"""What a model writes after a prompt: one token after the other, the likeliest or drawn, on every rank at once.

Tensor names carry their shape: B rows, T tokens, V vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vlm_catalogs.hashing import order_key
from vlm_train.models.expert_parallel import ExpertGroup
from vlm_train.models.family import EncodedSample, Family, empty_cache
from vlm_train.ranks import ALONE, Ranks
from vlm_train.shard_parameters import WholeForward

if TYPE_CHECKING:
    from vlm_train.loop import Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen, and how many are."""

    max_new_tokens: int
    temperature: float = 0.0
    """Logits are divided by it before a token is drawn; 0 takes the likeliest."""
    seed: int = 0
    """Of what is drawn; the sample's name is mixed in, so that neither rank nor order matters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """Writes tokens with the weights as they are; what it changes is set back."""

    whole: WholeForward
    precision: "Precision"
    experts: ExpertGroup | None = None
    ranks: Ranks = ALONE

    def write(self, prompt: EncodedSample, family: Family, *, stop_ids: frozenset[int], how: Sampling) -> list[int]:
        """The ids after ``prompt``, one of ``stop_ids`` last where there were enough tokens for it.

        All ranks call it, each with a prompt of its own: they share out parameters, so all go on until the last is
        done.
        """
        device = next(self.whole.parameters()).device
        key = order_key(how.seed, "answer", prompt.dataset, prompt.sample_id)
        generator = torch.Generator().manual_seed(key % 2**63)
        written: list[int] = []
        with self._reading_only(device):
            cache = empty_cache(self.whole.module)
            batch = family.collate([[prompt]]).to(device)
            positions_3BT = batch.position_ids_3BT
            self._begin(batch.input_ids_BT)
            logits_V = self.whole.first_logits(batch, cache)
            while True:
                if not _is_whole(written, stop_ids, how):
                    written.append(_choose(logits_V, generator, temperature=how.temperature))
                if not self.ranks.largest(int(not _is_whole(written, stop_ids, how))):
                    return written
                ids_BT = torch.tensor([written[-1:]], device=device)
                positions_3BT = None if positions_3BT is None else positions_3BT.amax().add(1).expand(3, 1, 1)
                self._begin(ids_BT)
                logits_V = self.whole.next_logits(ids_BT, positions_3BT, cache)

    def _begin(self, ids_BT: Tensor) -> None:
        """What ranks that share experts agree on before each forward pass."""
        if self.experts is not None:
            self.experts.begin(ids_BT.numel())

    @contextmanager
    def _reading_only(self, device: torch.device) -> Iterator[None]:
        was_training = self.whole.training
        self.whole.eval()
        try:
            with torch.no_grad(), self.precision.context(device):
                yield
        finally:
            self.whole.train(was_training)


def _is_whole(written: list[int], stop_ids: frozenset[int], how: Sampling) -> bool:
    return len(written) == how.max_new_tokens or bool(stop_ids.intersection(written[-1:]))


def _choose(logits_V: Tensor, generator: torch.Generator, *, temperature: float) -> int:
    """The next token. It is drawn on the CPU, so that a seed means the same on every device."""
    if temperature == 0:
        return int(logits_V.argmax())
    shares_V = torch.softmax(logits_V.cpu() / temperature, dim=0)
    return int(torch.multinomial(shares_V, 1, generator=generator))
