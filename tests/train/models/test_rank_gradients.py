"""The gradient of a step is the same however it is computed: micro-batches, ranks, packing, recomputation, experts.

References: for each sample alone, unpacked, the plain cross entropy of its full logits; a step's gradient is their sum
over the step's supervised tokens. Bounds are those of the project: 1e-6 over all parameters and 1e-5 for each, in fp32.
"""

import os
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.models.rank_steps import Found, Way, take_ways, write_plan
from torch.nn.functional import cross_entropy

from vlm_train.local_ranks import run_locally
from vlm_train.loss import token_losses
from vlm_train.models.family import EncodedSample
from vlm_train.models.pretrained import export_model
from vlm_train.moe import is_router
from vlm_train.ranks import ALONE

IMAGE, IMAGES, VIDEO, TEXT, BOTH, EMPTY = range(6)
FOUR = (IMAGE, VIDEO, TEXT, BOTH)
ROOT = Path(__file__).parents[3]
PROGRAM = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.train.models.rank_steps import main; main()"
MOE = ("qwen3_vl_moe", "nemotron_h_omni")
PACKED = "train.sequence_packing=true"


class Reference:
    """Gradient and loss of the five samples, each alone."""

    def __init__(self, tiny: Any, folder: Path | None = None) -> None:
        """``folder`` holds other weights of the same model."""
        self.tiny = tiny
        self.folder = folder or tiny.folder
        self.samples = [tiny.encode(number) for number in range(5)]
        self.samples.append(
            EncodedSample(
                dataset="",
                sample_id="",
                input_ids_T=torch.tensor([1, 1]),
                labels_T=torch.tensor([-100, -100]),
                media=(),
            )
        )
        self.alone = [self._alone(sample) for sample in self.samples[:5]]

    def _alone(self, sample: Any) -> tuple[int, float, dict[str, torch.Tensor]]:
        module = self.tiny.load(folder=self.folder).train()
        batch = self.tiny.family.collate([[sample]])
        logits_NV = self.tiny.family.logits(module, batch).flatten(0, 1)[batch.places_N].float()
        loss = cross_entropy(logits_NV, batch.targets_N, reduction="sum")
        loss.backward()
        gradient = {name: one.grad for name, one in module.named_parameters() if one.requires_grad}
        return batch.num_supervised_tokens, loss.item(), gradient

    def check(self, found: Found, step: Any, what: str) -> None:
        """``found`` is the step's loss and gradient."""
        numbers = [one for rank in step for batch in rank for row in batch for one in row if one != EMPTY]
        total = sum(self.alone[one][0] for one in numbers)
        assert found.loss == pytest.approx(sum(self.alone[one][1] for one in numbers) / total, rel=1e-5), what
        names = self.alone[0][2].keys()
        expected = {
            name: torch.stack([self.alone[one][2][name].double() for one in numbers]).sum(0) / total for name in names
        }
        whole = torch.cat([one.flatten() for one in expected.values()])
        gradient = {name: found.gradient[name].double() for name in names}
        difference = torch.cat([(gradient[name] - expected[name]).flatten() for name in names])
        assert difference.norm() / whole.norm() <= 1e-6, what
        assert found.grad_norm == pytest.approx(whole.norm().item(), rel=1e-5), what
        for name in names:
            off = (gradient[name] - expected[name]).norm()
            if expected[name].norm() > 1e-6 * whole.norm():
                assert off / expected[name].norm() <= 1e-5, f"{what}: {name}"
            else:  # nothing but rounding, such as the bias of keys: a softmax does not see it
                assert off <= 1e-5 * whole.norm(), f"{what}: {name}"


@pytest.fixture(scope="module")
def reference(tiny: Any) -> Reference:
    return Reference(tiny)


def rows(*numbers: int) -> tuple[tuple[int, ...], ...]:
    """A micro-batch of one sample a row."""
    return tuple((one,) for one in numbers)


def in_one_row(*numbers: int) -> Any:
    """A step of one packed row in one process."""
    return (((numbers,),),)


ONE_BY_ONE = ((tuple(rows(one) for one in FOUR),),)
ALL_AT_ONCE = (((rows(*FOUR),),),)
TWO_BY_TWO = (((rows(IMAGE, VIDEO), rows(TEXT, BOTH)),),)
IN_ONE_ROW = (in_one_row(*FOUR),)
ALONE_WAYS = (
    Way("4 x 1", ONE_BY_ONE),
    Way("1 x 4, padded", ALL_AT_ONCE),
    Way("2 x 2", TWO_BY_TWO),
    Way("packed", IN_ONE_ROW, (PACKED,)),
    Way("packed, recomputed", IN_ONE_ROW, (PACKED, "policy.model_gradient_checkpointing=true")),
    Way("recomputed", TWO_BY_TWO, ("policy.model_gradient_checkpointing=true",)),
    Way("recomputed in part", TWO_BY_TWO, ('policy.model_gradient_checkpointing="selective"',)),
)


def test_one_process_gives_the_gradient_of_its_samples_in_any_way(reference: Reference, tmp_path: Path) -> None:
    check_alone(reference, tmp_path, ALONE_WAYS)


def test_the_loss_in_chunks_gives_the_gradient_of_the_loss_at_once(
    reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference makes all logits at once; here a sample has several chunks, and a chunk several samples."""
    monkeypatch.setattr("vlm_train.shard_parameters.token_losses", partial(token_losses, chunk=3))
    write_plan(tmp_path, reference.tiny.folder, reference.samples, [Way("chunks", TWO_BY_TWO)])
    reference.check(take_ways(tmp_path, ALONE)["chunks"][0], TWO_BY_TWO[0], "chunks of 3 tokens")


def random_steps(number: int, *, packed: bool, seed: int, num_ranks: int = 2) -> Any:
    """Steps of ranks with two micro-batches each, of any media, so that ranks often have different ones."""
    draw = random.Random(seed)

    def row() -> tuple[int, ...]:
        return tuple(draw.randrange(5) for _ in range(draw.randint(1, 3) if packed else 1))

    def batch(rank: int, step: int) -> tuple[tuple[int, ...], ...]:
        if step == 0:  # one rank has text alone while the other looks at pictures and films
            return ((TEXT,),) if rank else ((BOTH,),)
        if step == 1 and rank:  # and a rank without any sample
            return ((EMPTY,),)
        return tuple(row() for _ in range(draw.randint(1, 2)))

    return tuple(tuple((batch(rank, step), batch(rank, step)) for rank in range(num_ranks)) for step in range(number))


def two_rank_ways(family: str, *, number: int, seed: int) -> list[Way]:
    plain, packed = random_steps(number, packed=False, seed=seed), random_steps(number, packed=True, seed=seed)
    ways = [
        Way("plain", plain),
        Way("packed, recomputed", packed, (PACKED, "policy.model_gradient_checkpointing=true")),
        Way("reduced once a step", plain, ("train.fsdp_reshard_after_forward=never",)),
        Way("two copies", plain, ("policy.parallelism.dp_replicate_size=2",)),
    ]
    if family in MOE:
        ways.append(Way("experts shared out", plain, ("policy.parallelism.ep_size=2",)))
        ways.append(
            Way(
                "experts shared out, packed, recomputed",
                packed,
                (PACKED, "policy.parallelism.ep_size=2", "policy.model_gradient_checkpointing=true"),
            )
        )
    return ways


def check_ranks(reference: Reference, folder: Path, ways: list[Way], *, what: str, num_ranks: int = 2) -> None:
    """All ways on several ranks."""
    write_plan(folder, reference.folder, reference.samples, ways)
    assert run_locally([sys.executable, "-c", PROGRAM, str(folder)], num_processes=num_ranks) == 0
    found = torch.load(folder / "found.pt", weights_only=False)
    assert found.keys() == {way.name for way in ways}
    for way in ways:
        for place, (one, step) in enumerate(zip(found[way.name], way.steps, strict=True)):
            reference.check(one, step, f"{way.name}, step {place} ({what})")


def drawn_seed() -> int:
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")
    return seed


def test_two_ranks_of_different_media_give_the_gradient_of_their_samples(reference: Reference, tmp_path: Path) -> None:
    family, seed = reference.tiny.family.model_type, drawn_seed()
    if family != "qwen3_vl_moe":
        pytest.skip("the other families take their steps in the slow test")
    quick = ("reduced once a step", "two copies", "experts shared out, packed, recomputed")
    ways = [way for way in two_rank_ways(family, number=2, seed=seed) if way.name in quick]
    check_ranks(reference, tmp_path, ways, what=f"seed {seed}")


def compiled(name: str, steps: Any, *settings: str, backend: str) -> Way:
    return Way(name, steps, ("train.compile=true", *settings), backend=backend)


RECOMPUTED = "policy.model_gradient_checkpointing=true"


def check_alone(reference: Reference, folder: Path, ways: Sequence[Way]) -> None:
    write_plan(folder, reference.tiny.folder, reference.samples, ways)
    for way, found in zip(ways, take_ways(folder, ALONE).values(), strict=True):
        for one, step in zip(found, way.steps, strict=True):
            reference.check(one, step, way.name)


def test_a_compiled_and_recomputed_step_gives_the_gradient_of_its_samples(
    reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced and split by torch.compile as on a GPU; what is traced then runs by torch's own operators.

    Only the layers of the text model, to be quick.
    """
    monkeypatch.setattr("vlm_train.models.compiled_layers.VISION_LAYERS", ())
    if reference.tiny.family.model_type != "qwen3_vl":
        pytest.skip("all families take their steps in the slow test")
    way = compiled("packed, recomputed", (in_one_row(TEXT, IMAGE),), PACKED, RECOMPUTED, backend="aot_eager")
    before = compiled_graphs()
    check_alone(reference, tmp_path, [way])
    assert compiled_graphs() > before, "nothing was compiled"


def compiled_graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


@pytest.mark.slow
def test_compiled_steps_give_the_gradient_of_their_samples(reference: Reference, tmp_path: Path) -> None:
    """By C++ that inductor writes and the machine's compiler builds."""
    steps = (in_one_row(TEXT, IMAGE), in_one_row(IMAGE, VIDEO, TEXT), in_one_row(BOTH, IMAGES))
    ways = [
        compiled("packed, recomputed", steps, PACKED, RECOMPUTED, backend="inductor"),
        compiled("recomputed in part", steps[:1], PACKED, RECOMPUTED.replace("true", "selective"), backend="inductor"),
        compiled("padded", (((rows(IMAGE, VIDEO), rows(TEXT, BOTH)),),), backend="inductor"),
    ]
    check_alone(reference, tmp_path, ways)


@pytest.mark.slow
def test_compiled_layers_over_two_ranks_give_the_gradient_of_their_samples(
    reference: Reference, tmp_path: Path
) -> None:
    seed = drawn_seed()
    ways = [
        replace(way, settings=(*way.settings, "train.compile=true"), backend="aot_eager")
        for way in two_rank_ways(reference.tiny.family.model_type, number=3, seed=seed)
        if way.name in ("plain", "packed, recomputed", "experts shared out, packed, recomputed")
    ]
    check_ranks(reference, tmp_path, ways, what=f"compiled, seed {seed}")


@pytest.mark.slow
def test_two_ranks_give_the_gradient_of_their_samples_in_fifty_random_steps(
    reference: Reference, tmp_path: Path
) -> None:
    seed = drawn_seed()
    ways = two_rank_ways(reference.tiny.family.model_type, number=50, seed=seed)
    check_ranks(reference, tmp_path, ways, what=f"seed {seed}")


@pytest.mark.slow
def test_copies_of_shards_over_four_ranks_give_the_gradient_of_their_samples(
    reference: Reference, tmp_path: Path
) -> None:
    seed = drawn_seed()
    steps = random_steps(3, packed=True, seed=seed, num_ranks=4)
    copies = (PACKED, "policy.parallelism.dp_replicate_size=2")
    ways = [Way("2 x 2", steps, copies), Way("once a step", steps, (*copies, "train.fsdp_reshard_after_forward=never"))]
    if reference.tiny.family.model_type in MOE:
        ways.append(Way("2 x 2, experts shared out", steps, (*copies, "policy.parallelism.ep_size=2")))
    check_ranks(reference, tmp_path, ways, what=f"seed {seed}", num_ranks=4)


@pytest.mark.slow
def test_an_expert_and_a_rank_without_tokens_change_no_gradient(tiny: Any, tmp_path: Path) -> None:
    if tiny.family.model_type not in MOE:
        pytest.skip("a model without experts")
    export_model(shunned(tiny, expert=1), str(tiny.folder), tmp_path / "model")
    reference = Reference(tiny, tmp_path / "model")
    step = (((((TEXT,),), ((TEXT,), (TEXT,))), (((EMPTY,),), ((EMPTY,), (EMPTY,)))),)
    for name, gradient in reference.alone[TEXT][2].items():
        if ".experts." in name:
            assert [bool(one.any()) for one in gradient] == [True, False, True, True], name
    way = Way("experts shared out", step, ("policy.parallelism.ep_size=2",))
    check_ranks(reference, tmp_path / "plan", [way], what="no token for expert 1")


def shunned(tiny: Any, *, expert: int) -> torch.nn.Module:
    """The model with routers that send no token of TEXT to one expert: its row points away from all that they see."""
    module, seen = tiny.load(), []
    for router in (one for one in module.modules() if is_router(one)):
        handle = router.register_forward_hook(lambda _module, inputs, _outputs: seen.append(inputs[0]))
        with torch.no_grad():
            tiny.family.hidden_states(module, tiny.batch(TEXT))
            inputs_ND = seen.pop().flatten(0, -2)
            away_D = torch.linalg.lstsq(inputs_ND, -10 * torch.ones(len(inputs_ND), 1), driver="gelsd").solution[:, 0]
            router.weight[expert] = away_D
        handle.remove()
    return module  # type: ignore[no-any-return]
