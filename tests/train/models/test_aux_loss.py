"""The auxiliary loss of Qwen3-VL MoE is that of transformers over the whole step, however the step is computed."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.models.rank_steps import Found, Way, take_ways, write_plan
from torch.nn.functional import cross_entropy
from transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe import load_balancing_loss_func

from vlm_catalogs.config import load_config
from vlm_catalogs.errors import ConfigError
from vlm_train.load import refuse_without_effect
from vlm_train.local_ranks import run_locally
from vlm_train.moe import is_router
from vlm_train.ranks import ALONE

IMAGE, IMAGES, VIDEO, TEXT = range(4)
FOUR = (IMAGE, IMAGES, VIDEO, TEXT)
COEFFICIENT = 0.5
AUX = f"policy.aux_loss_coeff={COEFFICIENT}"
ROOT = Path(__file__).parents[3]
PROGRAM = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.train.models.rank_steps import main; main()"


@pytest.fixture(scope="module")
def moe(tiny: Any) -> Any:
    if tiny.family.model_type != "qwen3_vl_moe":
        pytest.skip("only Qwen3-VL MoE has the loss")
    return tiny


def expected_step(moe: Any) -> tuple[float, torch.Tensor]:
    """Auxiliary loss and gradient of one padded batch of all samples, by transformers' own function."""
    module = moe.load().train()
    batch = moe.batch(*FOUR)
    logits: list[torch.Tensor] = []
    for router in (one for one in module.modules() if is_router(one)):
        router.register_forward_hook(lambda _module, _inputs, outputs: logits.append(outputs[0]))
    logits_NV = moe.family.logits(module, batch).flatten(0, 1)[batch.places_N].float()
    text = module.config.get_text_config()
    aux = load_balancing_loss_func(
        tuple(logits), text.num_experts, text.num_experts_per_tok, attention_mask=batch.is_real_BT.float()
    )
    assert isinstance(aux, torch.Tensor)
    (cross_entropy(logits_NV, batch.targets_N) + COEFFICIENT * aux).backward()
    gradient = {name: one.grad for name, one in module.named_parameters()}
    return COEFFICIENT * aux.item(), flat(gradient)


def flat(gradient: dict[str, Any]) -> torch.Tensor:
    return torch.cat([gradient[name].double().flatten() for name in sorted(gradient)])


def check(found: Found, expected: tuple[float, torch.Tensor], what: str) -> None:
    aux, gradient = expected
    assert found.aux_loss == pytest.approx(aux, rel=1e-6), what
    assert (flat(found.gradient) - gradient).norm() / gradient.norm() <= 1e-6, what


def rows(*numbers: int) -> tuple[tuple[int, ...], ...]:
    return tuple((one,) for one in numbers)


def samples(moe: Any) -> list[Any]:
    return [moe.encode(number) for number in FOUR]


def test_the_loss_is_that_of_the_whole_step_whatever_the_micro_batches(moe: Any, tmp_path: Path) -> None:
    ways = (
        Way("one micro-batch", (((rows(*FOUR),),),), (AUX,)),
        Way("four", ((tuple(rows(one) for one in FOUR),),), (AUX,)),
        Way("packed", (((((IMAGE, IMAGES),), ((VIDEO, TEXT),)),),), (AUX, "train.sequence_packing=true")),
        Way("recomputed", (((rows(*FOUR),),),), (AUX, "policy.model_gradient_checkpointing=true")),
    )
    write_plan(tmp_path, moe.folder, samples(moe), ways)
    expected = expected_step(moe)
    for name, (found,) in take_ways(tmp_path, ALONE).items():
        check(found, expected, name)


@pytest.mark.slow
def test_the_loss_is_that_of_the_whole_step_over_ranks(moe: Any, tmp_path: Path) -> None:
    step = (((rows(IMAGE), rows(TEXT)), (rows(IMAGES), rows(VIDEO))),)
    ways = (Way("two ranks", step, (AUX,)), Way("experts", step, (AUX, "policy.parallelism.ep_size=2")))
    write_plan(tmp_path, moe.folder, samples(moe), ways)
    assert run_locally([sys.executable, "-c", PROGRAM, str(tmp_path)], num_processes=2) == 0
    expected = expected_step(moe)
    for name, (found,) in torch.load(tmp_path / "found.pt", weights_only=False).items():
        check(found, expected, name)


def test_without_a_coefficient_there_is_none(moe: Any, tmp_path: Path) -> None:
    write_plan(tmp_path, moe.folder, samples(moe), [Way("off", (((rows(*FOUR),),),))])
    assert take_ways(tmp_path, ALONE)["off"][0].aux_loss is None


def test_a_model_that_cannot_have_it_is_refused_before_it_is_loaded(tiny: Any, tmp_path: Path) -> None:
    write_plan(tmp_path, tiny.folder, [], [])
    config = load_config(tmp_path / "config.toml", overrides=[AUX])
    if tiny.family.model_type == "qwen3_vl_moe":
        refuse_without_effect(config, tiny.family)
        return
    with pytest.raises(ConfigError, match="no routers with an auxiliary loss"):
        refuse_without_effect(config, tiny.family)
