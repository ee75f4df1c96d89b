"""Nemotron's experts are balanced by the rule in hand-written form, over whole steps, ranks and packed rows alike."""

import math
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.models.rank_steps import Found, Way, take_ways, write_plan
from transformers import AutoModelForImageTextToText

from vlm_catalogs.config import load_config
from vlm_catalogs.errors import ConfigError
from vlm_train.load import refuse_without_effect
from vlm_train.local_ranks import run_locally
from vlm_train.models.family import EncodedSample
from vlm_train.models.pretrained import export_model
from vlm_train.moe import BIAS, is_router
from vlm_train.ranks import ALONE

NUM_STEPS = 20
RATE = 1e-3
SKEW = 0.012
"""Lead of the first expert when the steps begin, above what the routers' own scores differ by."""
BALANCED = "custom.enable_moe_load_balancing_training=true"
IMAGE, IMAGES, TEXT, EMPTY = 0, 1, 3, 5
ROOT = Path(__file__).parents[3]
PROGRAM = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.train.models.rank_steps import main; main()"
Step = tuple[tuple[tuple[tuple[int, ...], ...], ...], ...]


@pytest.fixture(scope="module")
def skewed(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """The tiny model, and a folder with it whose routers send most tokens to their first expert."""
    if tiny.family.model_type != "nemotron_h_omni":
        pytest.skip("only Nemotron has routers with a selection bias")
    module = tiny.load()
    for router in routers(module):
        getattr(router, BIAS)[0] += SKEW
        router.weight.data *= 0.03
    folder = tmp_path_factory.mktemp("skewed") / "model"
    export_model(module, str(tiny.folder), folder)
    return tiny, folder


def routers(module: torch.nn.Module) -> list[Any]:
    return [one for one in module.modules() if is_router(one)]


def samples(tiny: Any) -> list[EncodedSample]:
    ids_T = torch.tensor([1, 1])
    empty = EncodedSample(dataset="", sample_id="", input_ids_T=ids_T, labels_T=torch.full_like(ids_T, -100), media=())
    return [*(tiny.encode(number) for number in range(5)), empty]


def random_steps(draw: random.Random) -> tuple[Step, ...]:
    """Two ranks with two micro-batches each, of one row or two, packed or padded, some of them empty."""

    def row() -> tuple[int, ...]:
        return tuple(draw.choices((IMAGE, IMAGES, TEXT), k=draw.randint(1, 2))) if draw.random() < 0.9 else (EMPTY,)

    def rank() -> tuple[tuple[tuple[int, ...], ...], ...]:
        return tuple(tuple(row() for _ in range(draw.randint(1, 2))) for _ in range(2))

    return tuple((rank(), rank()) for _ in range(NUM_STEPS))


def in_one_process(steps: Sequence[Step]) -> tuple[Step, ...]:
    return tuple((tuple(batch for rank in step for batch in rank),) for step in steps)


def by_hand(tiny: Any, folder: Path, steps: Sequence[Step]) -> tuple[list[list[torch.Tensor]], list[float]]:
    """The biases of each router after each step, and the entropy of each step's load: each sample alone, a loop."""
    module = tiny.family.prepare(AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)).train()
    layers = routers(module)
    chosen: dict[int, list[int]] = {}
    for number, router in enumerate(layers):
        router.register_forward_hook(
            lambda _module, _inputs, outputs, number=number: chosen[number].extend(outputs[2].flatten().tolist())
        )
    biases, entropies = [], []
    for step in steps:
        chosen = {number: [] for number in range(len(layers))}
        for one in (one for rank in step for batch in rank for row in batch for one in row if one != EMPTY):
            with torch.no_grad():
                tiny.family.hidden_states(module, tiny.batch(one))
        loads = [[picks.count(expert) for expert in range(layers[0].num_experts)] for picks in chosen.values()]
        for router, load in zip(layers, loads, strict=True):
            mean = sum(load) / len(load)
            for expert, count in enumerate(load):
                getattr(router, BIAS)[expert] += RATE * ((mean > count) - (mean < count))
        biases.append([getattr(router, BIAS).clone() for router in layers])
        entropies.append(sum(map(entropy, loads)) / len(loads))
    return biases, entropies


def entropy(load: Sequence[int]) -> float:
    shares = [count / sum(load) for count in load if count]
    return -sum(share * math.log(share) for share in shares)


def check(found: Sequence[Found], biases: list[list[torch.Tensor]], what: str) -> None:
    for step, (one, expected) in enumerate(zip(found, biases, strict=True)):
        for bias, by_hand in zip(one.biases.values(), expected, strict=True):
            assert bias.dtype is torch.float32
            assert torch.allclose(bias, by_hand, rtol=0, atol=1e-7), f"{what}, step {step}"


def test_twenty_random_steps_move_the_biases_as_by_hand_and_the_load_evens_out(
    skewed: tuple[Any, Path], tmp_path: Path
) -> None:
    tiny, folder = skewed
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    steps = random_steps(random.Random(seed))
    biases, entropies = by_hand(tiny, folder, steps)
    way = Way("alone", in_one_process(steps), (BALANCED, "train.master_dtype=float32"))
    write_plan(tmp_path, folder, samples(tiny), [way])
    check(take_ways(tmp_path, ALONE)["alone"], biases, f"seed {seed}")
    first, last = sum(entropies[:3]) / 3, sum(entropies[-3:]) / 3
    assert last > first + 0.05, entropies


def test_the_bias_stays_in_fp32_and_exact_beside_weights_in_bfloat16(skewed: tuple[Any, Path], tmp_path: Path) -> None:
    tiny, folder = skewed
    settings = (BALANCED, "train.param_dtype=bfloat16", "train.master_dtype=bfloat16")
    write_plan(tmp_path, folder, samples(tiny), [Way("half", in_one_process([((((TEXT,),),),)]), settings)])
    (found,) = take_ways(tmp_path, ALONE)["half"]
    assert found.types == {"bfloat16"}
    for bias in found.biases.values():
        assert bias.dtype is torch.float32
        moved = bias - torch.tensor([SKEW] + [0.0] * (len(bias) - 1))
        assert all(abs(abs(one) - RATE) < 1e-7 or one == 0 for one in moved.tolist())


def test_adapters_leave_the_biases_as_they_are(skewed: tuple[Any, Path], tmp_path: Path) -> None:
    """An export of the adapters alone could not carry them."""
    tiny, folder = skewed
    lora = ("policy.lora.r=2", "policy.lora.target_modules='all-linear'")
    write_plan(tmp_path, folder, samples(tiny), [Way("adapters", ((((((TEXT,),),),)),), lora)])
    toml = tmp_path / "config.toml"
    toml.write_text(toml.read_text().replace("enable_moe_load_balancing_training = false", ""))
    (found,) = take_ways(tmp_path, ALONE)["adapters"]
    assert all(bias[0] == pytest.approx(SKEW) and not bias[1:].any() for bias in found.biases.values())
    with pytest.raises(ConfigError, match=r"enable_moe_load_balancing_training: has no effect beside \[policy\.lora\]"):
        refuse_without_effect(load_config(toml, overrides=[BALANCED, *lora]), tiny.family)


@pytest.mark.slow
def test_twenty_random_steps_move_the_biases_as_by_hand_over_ranks(skewed: tuple[Any, Path], tmp_path: Path) -> None:
    tiny, folder = skewed
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    steps = random_steps(random.Random(seed))
    biases, _ = by_hand(tiny, folder, steps)
    ways = [
        Way("two ranks", steps, (BALANCED,)),
        Way("experts", steps, (BALANCED, "policy.parallelism.ep_size=2")),
        Way("recomputed", steps, (BALANCED, "policy.model_gradient_checkpointing=true")),
    ]
    write_plan(tmp_path, folder, samples(tiny), ways)
    assert run_locally([sys.executable, "-c", PROGRAM, str(tmp_path)], num_processes=2) == 0
    for name, found in torch.load(tmp_path / "found.pt", weights_only=False).items():
        check(found, biases, f"{name}, seed {seed}")
