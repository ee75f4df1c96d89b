"""One optimizer step: the loss of a whole step, its gradient, the guard, the update.

The loss is the sum over supervised tokens divided by their number in the whole step, so micro-batches weigh by tokens,
unless the step comes with groups (``loss_weights``).
Nothing in a step waits for the device: numbers are read a step later. Tensor names carry their shape: B rows, T tokens,
N supervised tokens, S samples.
"""

import random
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from vlm_catalogs.hashing import order_key
from vlm_train.aux_loss import AuxLoss
from vlm_train.guard import StepGuard, Verdict
from vlm_train.loss import sample_sums
from vlm_train.loss_weights import LossGroups, loss_weights
from vlm_train.models.expert_parallel import ExpertGroup
from vlm_train.models.family import Batch
from vlm_train.moe import RouterWatch
from vlm_train.moment import Moment
from vlm_train.optimizer import clip_gradients, step_unless
from vlm_train.ranks import ALONE, Ranks
from vlm_train.shard_parameters import WholeForward, defer_reduction
from vlm_train.step_result import PendingStep, SampleLoss, dataset_sums, sample_losses
from vlm_train.writer import Writer


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """The two types of a run on one process: master weights, and what forward and backward compute in."""

    master: torch.dtype
    """Type of the weights, their gradients and the optimizer's state."""
    compute: torch.dtype
    """Type of matrix products; torch.autocast casts for them where it differs from ``master``."""

    def context(self, device: torch.device) -> AbstractContextManager[object]:
        """What the forward pass runs in."""
        if self.compute == self.master:
            return nullcontext()
        return torch.autocast(device.type, dtype=self.compute)


class Trainer:
    """A module, its family and its optimizer; takes one step at a time."""

    def __init__(
        self,
        whole: WholeForward,
        optimizer: Optimizer,
        *,
        precision: Precision,
        grad_norm_clip: float,
        balance_experts: bool = False,
        aux_loss_coeff: float = 0.0,
        spike_mads: float = 0.0,
        experts: ExpertGroup | None = None,
        ranks: Ranks = ALONE,
        device: torch.device | None = None,
    ) -> None:
        """``device`` is what computes; None is where the parameters are, which may be offloaded."""
        self.module = whole.module
        self.optimizer = optimizer
        self.routers = RouterWatch(whole.module)
        self._balance = balance_experts and self.routers.can_balance
        self._aux_coeff = aux_loss_coeff if self.routers.routers else 0.0
        self._whole = whole
        self._precision = precision
        self._grad_norm_clip = grad_norm_clip
        self._experts = experts
        self._ranks = ranks
        self._trained = [parameter for parameter in whole.parameters() if parameter.requires_grad]
        self._device = device or self._trained[0].device
        self.guard = StepGuard(self._device, spike_mads=spike_mads)

    def take_step(
        self,
        batches: Sequence[Batch],
        *,
        groups: LossGroups | None = None,
        datasets: Sequence[str] = (),
        also: Sequence[float] = (),
        report_routers: bool = False,
    ) -> PendingStep:
        """Update the weights by one step, of whose micro-batches ``batches`` are those of this rank.

        The loss is the mean over the supervised tokens of the step; with ``groups`` the mean over these of each one's.
        A bad step (see ``guard``) changes nothing, on any rank. Nothing here waits for the device: the numbers come by
        ``result`` of what is returned, those of each of ``datasets`` among them, the sums of ``also`` over the ranks,
        and with ``report_routers`` their health since the last report.
        """
        weights_S = loss_weights(batches, groups, add_up=self._ranks.add_up).to(self._device, non_blocking=True)
        self.optimizer.zero_grad(set_to_none=True)
        chosen = self._loads_of_step(batches) if self._aux_coeff and len(batches) > 1 else None
        sums, aux = [], torch.zeros(1, dtype=torch.float64, device=self._device)
        of_batches = torch.split(weights_S.float(), [len(batch.sample_ids) for batch in batches])
        for number, (batch, of_batch_S) in enumerate(zip(batches, of_batches, strict=True), start=1):
            defer_reduction(self._whole, more=number < len(batches))
            sums.append(self._add_gradient(batch, of_batch_S, chosen, aux))
        norm = clip_gradients(self._trained, max_norm=self._grad_norm_clip).double().to(self._device)
        sums_S = torch.cat(sums)
        counts = [
            sum(batch.num_supervised_tokens for batch in batches),
            sum(batch.num_tokens for batch in batches),
            sum(batch.num_padding for batch in batches),
        ]
        of_host = torch.tensor([*counts, *also], dtype=torch.float64).to(self._device, non_blocking=True)
        of_datasets = dataset_sums(batches, sums_S, datasets=datasets)
        shared = self._ranks.add_up(torch.cat([(sums_S * weights_S).sum()[None], aux, of_host, of_datasets]))
        verdict = self.guard.judge(shared[0], norm)
        is_bad = (verdict != Verdict.GOOD).float()
        step_unless(self.optimizer, is_bad)
        self._end_step_of_routers(is_bad)
        ends = [5, 5 + len(also)]
        return PendingStep(
            batches,
            datasets=datasets,
            has_aux_loss=bool(self._aux_coeff),
            numbers=torch.cat([verdict.double()[None], norm[None], shared[: ends[0]]]),
            also=shared[ends[0] : ends[1]],
            dataset_sums=shared[ends[1] :],
            sums_S=sums_S,
            loads=self.routers.take_loads() if report_routers else (),
        )

    def measure(self, batches: Iterable[Batch]) -> list[SampleLoss]:
        """The losses of the samples of ``batches`` with the weights as they are; nothing changes.

        All ranks call it with as many batches.
        """
        was_training = self._whole.training
        self._whole.eval()
        try:
            with torch.no_grad():
                return [loss for batch in batches for loss in sample_losses([batch], self._losses(batch).tolist())]
        finally:
            self._whole.train(was_training)

    def writer(self) -> Writer:
        """What writes answers with the weights as they are."""
        return Writer(whole=self._whole, precision=self._precision, experts=self._experts, ranks=self._ranks)

    def now(self) -> Moment:
        """Where the device is."""
        return Moment(self._device)

    def _end_step_of_routers(self, is_bad: Tensor) -> None:
        loads = self.routers.step_loads()
        if loads is not None:
            self._ranks.add_up(loads)
            self.routers.end_step(balance=self._balance, counts=1 - is_bad)

    def _losses(self, batch: Batch) -> Tensor:
        """The loss (S,) of each sample of a batch."""
        on_device = batch.to(self._device)
        losses_N = self._forward(on_device, counting=nullcontext())
        return sample_sums(losses_N, on_device.samples_N, num_samples=len(batch.sample_ids))

    def _begin(self, on_device: Batch) -> None:
        """What ranks that share experts agree on before each forward pass."""
        if self._experts is not None:
            self._experts.begin(on_device.input_ids_BT.numel())

    def _add_gradient(self, batch: Batch, weights_S: Tensor, chosen: Tensor | None, aux: Tensor) -> Tensor:
        """The loss (S,) of each sample of the micro-batch; its part of the step's gradient is added up, ``aux`` too."""
        on_device = batch.to(self._device)
        losses_N = self._forward(on_device, counting=self._counting(on_device))
        loss = (losses_N * weights_S[on_device.samples_N]).sum()
        if self._aux_coeff:
            router = self.routers.routers[0]
            loads_E = self._loads_so_far() if chosen is None else chosen
            whole = AuxLoss(coefficient=self._aux_coeff, loads_E=loads_E, experts_per_token=router.top_k)
            part = whole.part(self.routers.probability_sum())
            aux += part.detach()
            loss = loss + part
        torch.autograd.backward(loss)
        return sample_sums(losses_N, on_device.samples_N, num_samples=len(batch.sample_ids))

    def _forward(self, on_device: Batch, *, counting: AbstractContextManager[object]) -> Tensor:
        """The loss (N,) of each supervised token, the routers watched by ``counting``."""
        self._begin(on_device)
        with self._precision.context(self._device), counting:
            losses_N: Tensor = self._whole(on_device)
        return losses_N

    def _counting(self, on_device: Batch) -> AbstractContextManager[object]:
        return self.routers.counting(on_device.is_real_BT, with_probabilities=bool(self._aux_coeff))

    def _loads_of_step(self, batches: Sequence[Batch]) -> Tensor:
        """Tokens of each expert over the whole step, from forward passes before the one that trains."""
        with torch.no_grad():
            for batch in batches:
                on_device = batch.to(self._device)
                self._forward(on_device, counting=self._counting(on_device))
        loads_E = self._loads_so_far()
        self.routers.clear_step()
        return loads_E

    def _loads_so_far(self) -> Tensor:
        """Tokens of each expert, over layers and ranks, of the passes counted since the last step."""
        return self._ranks.add_up(self.routers.layer_sum())


def seed_step(seed: int, step: int) -> None:
    """Seed every global generator for one step, so that a resumed run draws what an uninterrupted one would."""
    key = order_key(seed, "step", step)
    random.seed(key)
    np.random.seed(key % 2**32)  # for libraries that use it; ours do not
    torch.manual_seed(key % 2**63)
