import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from vlm_train.guard import Verdict
from vlm_train.loop import Precision, Trainer, seed_step
from vlm_train.models.family import Batch, EncodedSample, collate_rows
from vlm_train.optimizer import OptimizerSettings, build_optimizer
from vlm_train.shard_parameters import WholeForward
from vlm_train.step_result import StepResult

VOCABULARY = 11
FP32 = Precision(master=torch.float32, compute=torch.float32)


class TextFamily:
    """A family without media, small enough to check by hand: an embedding and a head."""

    model_type = "text"

    def load(self, model: str, **settings: Any) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Embedding(VOCABULARY, 8), nn.Linear(8, VOCABULARY))

    def encode(self, sample: Any, rendered: Any, *, blank: bool = False) -> EncodedSample:
        raise AssertionError("these tests begin with encoded samples")

    def collate(self, rows: Sequence[Sequence[EncodedSample]]) -> Batch:
        return collate_rows(rows, pad_id=0, positions_3T=None)

    def hidden_states(self, module: nn.Module, batch: Batch) -> Tensor:
        hidden: Tensor = module[0](batch.input_ids_BT)  # type: ignore[index]
        return hidden

    def output_layer(self, module: nn.Module) -> nn.Module:
        return module[1]  # type: ignore[index, no-any-return]

    def logits(self, module: nn.Module, batch: Batch) -> Tensor:
        logits: Tensor = module(batch.input_ids_BT)
        return logits


@dataclass
class Tried:
    result: StepResult
    gradient: Tensor
    weights: Tensor


def sample(number: int, *, length: int, num_supervised: int, dataset: str = "a") -> EncodedSample:
    generator = torch.Generator().manual_seed(number)
    ids = torch.randint(1, VOCABULARY, (length,), generator=generator)
    labels = torch.full_like(ids, -100)
    if num_supervised:
        labels[-num_supervised:] = ids[-num_supervised:]
    return EncodedSample(dataset=dataset, sample_id=str(number), input_ids_T=ids, labels_T=labels, media=())


SAMPLES = [
    sample(1, length=40, num_supervised=35),
    sample(2, length=5, num_supervised=1, dataset="b"),
    sample(3, length=12, num_supervised=2),
    sample(4, length=30, num_supervised=0),
]
EMPTY = EncodedSample(
    dataset="", sample_id="", input_ids_T=torch.tensor([1, 1]), labels_T=torch.tensor([-100, -100]), media=()
)


def trainer(module: nn.Module, *, impl: Any = "for-loop", spike_mads: float = 0.0) -> Trainer:
    settings = OptimizerSettings(
        lr={"default": 0.01}, impl=impl, weight_decay=0.01, betas=(0.9, 0.999), epsilon=1e-6, grad_norm_clip=1.0
    )
    return Trainer(
        WholeForward(module, TextFamily()),
        build_optimizer(module.named_parameters(), settings),
        precision=FP32,
        grad_norm_clip=settings.grad_norm_clip,
        spike_mads=spike_mads,
    )


def try_step(samples: Sequence[EncodedSample], *, mini_batch: int) -> Tried:
    family = TextFamily()
    module = family.load("")
    batches = [
        family.collate([[one] for one in samples[begin : begin + mini_batch]])
        for begin in range(0, len(samples), mini_batch)
    ]
    result = trainer(module).take_step(batches, datasets=("a", "b", "c")).result()
    gradient = torch.cat([parameter.grad.flatten() for parameter in module.parameters() if parameter.grad is not None])
    return Tried(result, gradient, torch.cat([parameter.detach().flatten() for parameter in module.parameters()]))


@pytest.mark.parametrize("mini_batch", [1, 2])
def test_micro_batches_add_up_to_one_big_batch(mini_batch: int) -> None:
    small, big = try_step(SAMPLES, mini_batch=mini_batch), try_step(SAMPLES, mini_batch=4)
    assert small.result.loss == pytest.approx(big.result.loss, rel=1e-6)
    assert loss_sums(small.result) == pytest.approx(loss_sums(big.result), rel=1e-6)
    assert (small.gradient - big.gradient).norm() / big.gradient.norm() <= 1e-6
    assert small.result.num_supervised_tokens == 38


def test_the_loss_is_the_mean_over_the_supervised_tokens_of_the_step() -> None:
    module = TextFamily().load("")
    total = 0.0
    for one in SAMPLES:
        logits = module(one.input_ids_T)
        for position in range(1, len(one.labels_T)):
            if one.labels_T[position] != -100:
                total -= torch.log_softmax(logits[position - 1], 0)[one.labels_T[position]].item()
    assert try_step(SAMPLES, mini_batch=2).result.loss == pytest.approx(total / 38, rel=1e-6)


def loss_sums(result: StepResult) -> dict[str, float]:
    return {one.sample_id: one.loss_sum for one in result.samples}


def test_the_losses_of_the_samples_add_up_to_the_loss_of_the_step() -> None:
    result = try_step(SAMPLES, mini_batch=2).result
    assert [(one.dataset, one.sample_id, one.num_supervised_tokens, one.num_tokens) for one in result.samples] == [
        ("a", "1", 35, 40), ("b", "2", 1, 5), ("a", "3", 2, 12), ("a", "4", 0, 30)
    ]  # fmt: skip
    assert sum(loss_sums(result).values()) / 38 == pytest.approx(result.loss, rel=1e-12)


def test_empty_rows_change_no_gradient_and_count_as_padding() -> None:
    with_empty = try_step([SAMPLES[0], EMPTY], mini_batch=1)
    alone = try_step([SAMPLES[0]], mini_batch=1)
    assert torch.equal(with_empty.gradient, alone.gradient)
    assert with_empty.result.loss == alone.result.loss
    assert (with_empty.result.num_tokens, with_empty.result.num_padding) == (40, 2)
    assert [one.sample_id for one in with_empty.result.samples] == ["1"]


def test_no_loss_on_unsupervised_tokens_nor_across_samples() -> None:
    one, other = ids_and_labels([5, -100, 3, -100]), ids_and_labels([7, 2])
    batch = TextFamily().collate([[one, other], [other]])
    assert batch.targets_N.tolist() == [3, 2, 2]  # the first token of a sample is never predicted
    assert batch.places_N.tolist() == [1, 4, 6]
    assert batch.samples_N.tolist() == [0, 1, 2]


def ids_and_labels(labels: list[int]) -> EncodedSample:
    labels_T = torch.tensor(labels)
    return EncodedSample(dataset="a", sample_id="1", input_ids_T=labels_T.abs(), labels_T=labels_T, media=())


def test_the_totals_of_datasets_are_those_of_their_samples() -> None:
    result = try_step([*SAMPLES, EMPTY], mini_batch=2).result
    assert result.datasets.keys() == {"a", "b"}
    assert sum(one.loss_sum for one in result.datasets.values()) / 38 == pytest.approx(result.loss, rel=1e-12)
    of_b = result.datasets["b"]
    assert (of_b.num_samples, of_b.num_tokens, of_b.num_supervised_tokens) == (1, 5, 1)
    assert of_b.loss_sum == loss_sums(result)["2"]


class NoWaiting(TorchFunctionMode):
    """Fails where Python asks a tensor for its values: on a GPU it would wait for them."""

    WAITS = ("item", "tolist", "numpy", "cpu", "nonzero", "masked_select", "unique", "equal", "allclose")
    MAGIC = ("__bool__", "__int__", "__float__", "__index__", "__contains__")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        assert name not in (*self.WAITS, *self.MAGIC), f"{name} waits for the device"
        return func(*args, **(kwargs or {}))


class NoReading(TorchDispatchMode):
    """The same below Python: what autograd, optimizers and modules ask for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal"), f"{name} waits"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("spike_mads", [0.0, 6.0])
def test_a_step_never_waits_for_the_device(spike_mads: float) -> None:
    """C9: with the fused optimizer, guard, clipping, moments and all."""
    one = trainer(TextFamily().load(""), impl="fused", spike_mads=spike_mads)
    batches = [TextFamily().collate([[each]]) for each in (*SAMPLES, EMPTY)]
    taken = []
    for _ in range(2):  # the first step makes the optimizer's state
        with NoWaiting(), NoReading():
            taken.append(one.take_step(batches, datasets=("a", "b"), also=(1.0,)))
    with pytest.raises(AssertionError, match="waits"), NoWaiting(), NoReading():
        taken[0].result()
    assert taken[1].result().loss < taken[0].result().loss
    assert taken[1].result().also == (1.0,)


def broken_sample() -> EncodedSample:
    broken = sample(9, length=3, num_supervised=1)
    broken.input_ids_T[:] = 0  # an id that the other samples do not use
    return broken


@pytest.mark.parametrize("impl", ["fused", "foreach", "for-loop"])
def test_a_step_whose_loss_is_not_finite_changes_nothing_and_the_next_goes_on_as_if_it_had_not_been(impl: Any) -> None:
    family, batch = TextFamily(), TextFamily().collate([[SAMPLES[0]], [SAMPLES[2]]])
    skipping, plain = (trainer(family.load(""), impl=impl) for _ in range(2))
    for one in (skipping, plain):
        with torch.no_grad():
            one.module[0].weight[0] = math.nan  # type: ignore[index]
        assert one.take_step([batch]).result().verdict == Verdict.GOOD
    bad = skipping.take_step([batch, family.collate([[broken_sample()]])]).result()
    assert bad.verdict == Verdict.LOSS_NOT_FINITE
    assert {one.sample_id: math.isfinite(one.loss_sum) for one in bad.samples} == {"1": True, "3": True, "9": False}
    assert everything(skipping) == everything(plain)
    for one in (skipping, plain):
        one.take_step([batch]).result()
    assert everything(skipping) == everything(plain)


def test_a_gradient_that_is_not_finite_is_found_though_all_losses_are() -> None:
    one = trainer(TextFamily().load(""), impl="fused")
    one.module[1].bias.register_hook(lambda gradient: gradient * math.inf)  # type: ignore[index]
    before = everything(one)
    found = one.take_step([TextFamily().collate([[SAMPLES[0]], [EMPTY]])]).result()
    assert found.verdict == Verdict.GRADIENT_NOT_FINITE
    assert math.isfinite(found.loss)
    assert everything(one)["weights"] == before["weights"]


def everything(one: Trainer) -> dict[str, Any]:
    """Weights and the optimizer's state to the bit, as text: NaN differs from itself."""
    states = [one.optimizer.state[parameter] for group in one.optimizer.param_groups for parameter in group["params"]]
    return {
        "weights": str([parameter.tolist() for parameter in one.module.parameters()]),
        "moments": str([{name: value.tolist() for name, value in state.items()} for state in states]),
    }


def test_what_a_step_draws_follows_seed_and_step_alone() -> None:
    draws = []
    for seed, step in [(1, 5), (1, 6), (2, 5), (1, 5)]:
        seed_step(seed, step)
        draws.append(torch.rand(3).tolist())
        torch.rand(step)
    assert draws[0] == draws[3]
    assert len({tuple(draw) for draw in draws}) == 3


def test_autocast_computes_in_the_compute_type_over_weights_in_the_master_type() -> None:
    module = nn.Linear(2, 2)
    mixed = Precision(master=torch.float32, compute=torch.bfloat16)
    with mixed.context(torch.device("cpu")):
        assert module(torch.ones(1, 2)).dtype is torch.bfloat16
    with FP32.context(torch.device("cpu")):
        assert module(torch.ones(1, 2)).dtype is torch.float32
    assert module.weight.dtype is torch.float32
