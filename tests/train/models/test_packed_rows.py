"""Packed rows are exact: each sample gives what it gives alone, for every family and every mixture of media."""

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from vlm_train.models.family import Batch, EncodedSample
from vlm_train.models.packed_layers import SEGMENTED, segmented_attention
from vlm_train.models.pretrained import enable_gradient_checkpointing
from vlm_train.models.segments import segments_of
from vlm_train.moe import RouterWatch

IMAGE, IMAGES, VIDEO, TEXT, BOTH = range(5)
ROWS = (((IMAGE, VIDEO, TEXT),), ((TEXT, IMAGES), (BOTH, TEXT, IMAGE)), ((VIDEO,), (TEXT, TEXT, TEXT)))


def gradients(tiny: Any, batches: list[Batch]) -> dict[str, torch.Tensor]:
    """Of the loss over all supervised tokens of the batches, from their full logits."""
    module = tiny.load().train()
    total = sum(batch.num_supervised_tokens for batch in batches)
    for batch in batches:
        logits_NV = tiny.family.logits(module, batch).flatten(0, 1)[batch.places_N].float()
        (cross_entropy(logits_NV, batch.targets_N, reduction="sum") / total).backward()
    return {name: parameter.grad for name, parameter in module.named_parameters()}


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("rows", ROWS)
def test_a_packed_row_gives_the_logits_of_each_sample_alone(tiny: Any, rows: tuple[tuple[int, ...], ...]) -> None:
    module = tiny.load().train()
    batch = tiny.rows(*rows)
    with torch.no_grad():
        packed_BTV = tiny.family.logits(module, batch)
        for number, row in enumerate(rows):
            begin = 0
            for index in row:
                alone_TV = tiny.family.logits(module, tiny.batch(index))[0]
                end = begin + len(alone_TV)
                assert (packed_BTV[number, begin:end] - alone_TV).abs().max() <= 1e-5
                begin = end


@pytest.mark.parametrize("rows", ROWS)
def test_a_packed_row_gives_the_gradient_of_its_samples_alone(tiny: Any, rows: tuple[tuple[int, ...], ...]) -> None:
    packed = gradients(tiny, [tiny.rows(*rows)])
    alone = gradients(tiny, [tiny.batch(index) for row in rows for index in row])
    whole = [torch.cat([gradient.flatten() for gradient in each.values()]) for each in (packed, alone)]
    assert relative(*whole) <= 1e-6
    for name, expected in alone.items():
        if expected.norm() > 1e-6 * whole[1].norm():
            assert relative(packed[name], expected) <= 1e-5, name
        else:  # nothing but rounding, such as the bias of keys: a softmax does not see it
            assert packed[name].norm() <= 1e-5 * whole[1].norm(), name


def test_no_loss_is_taken_across_samples_nor_on_padding(tiny: Any) -> None:
    batch = tiny.rows((TEXT, IMAGE), (TEXT,))
    alone = [tiny.batch(index) for index in (TEXT, IMAGE, TEXT)]
    assert batch.targets_N.tolist() == [token for one in alone for token in one.targets_N.tolist()]
    assert torch.bincount(batch.samples_N).tolist() == [one.num_supervised_tokens for one in alone]
    assert (batch.num_tokens, batch.num_padding) == (sum(one.num_tokens for one in alone), alone[1].num_tokens)


def test_rows_of_one_sample_are_not_packed(tiny: Any) -> None:
    assert tiny.rows((TEXT,), (IMAGE,)).segments is None


def test_padding_is_a_segment_of_its_own() -> None:
    segments = segments_of([[3, 2], [1]])
    assert segments.lengths == ((3, 2), (1, 4))
    assert segments.boundaries_S.tolist() == [0, 3, 5, 6, 10]
    assert segments.numbers_BT.tolist() == [[0, 0, 0, 1, 1], [0, 1, 1, 1, 1]]


def test_an_empty_row_beside_a_packed_one_counts_nothing_and_changes_nothing(tiny: Any) -> None:
    ids_T = torch.full((2,), tiny.renderer.token_ids.turn_end)
    empty = EncodedSample(dataset="", sample_id="", input_ids_T=ids_T, labels_T=torch.full_like(ids_T, -100), media=())
    samples = [tiny.encode(TEXT), tiny.encode(IMAGE)]
    batch = tiny.family.collate([samples, [empty]])
    assert batch.num_tokens == int(batch.is_real_BT.sum()) == sum(len(one.input_ids_T) for one in samples)
    module = tiny.load()
    with torch.no_grad():
        alone = tiny.family.logits(module, tiny.family.collate([samples]))
        assert (tiny.family.logits(module, batch)[0] - alone[0]).abs().max() <= 1e-5


def test_the_language_model_attends_by_segments_and_the_tower_does_not(tiny: Any) -> None:
    config = tiny.load().config
    assert config.get_text_config()._attn_implementation == SEGMENTED
    assert config.vision_config._attn_implementation == "sdpa"


def test_attention_by_segments_never_makes_a_square_of_the_row() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            output = function(*args, **(kwargs or {}))
            tensors = [one for one in torch.utils._pytree.tree_leaves(output) if isinstance(one, torch.Tensor)]
            Largest.elements = max([Largest.elements, *(one.numel() for one in tensors)])
            return output

    states = [torch.randn(1, 2, 1024, 4, requires_grad=True) for _ in range(3)]
    with Largest():
        output, _ = segmented_attention(torch.nn.Module(), *states, None, segments=segments_of([[64] * 16]))
        output.sum().backward()
    assert Largest.elements <= 1024 * 2 * 64


def test_gradient_checkpointing_changes_no_gradient_of_packed_rows(tiny: Any) -> None:
    batch = tiny.rows((IMAGE, VIDEO, TEXT))
    plain, checkpointed = tiny.load().train(), tiny.load().train()
    enable_gradient_checkpointing(checkpointed)
    for module in (plain, checkpointed):
        tiny.family.logits(module, batch).logsumexp(-1).sum().backward()
    for (name, one), (_, other) in zip(plain.named_parameters(), checkpointed.named_parameters(), strict=True):
        assert torch.equal(one.grad, other.grad), name


def test_routers_count_the_tokens_of_samples_and_no_padding(tiny: Any) -> None:
    loads = []
    for batches in ([tiny.rows((TEXT, IMAGE), (VIDEO,))], [tiny.batch(index) for index in (TEXT, IMAGE, VIDEO)]):
        module = tiny.load()
        watch = RouterWatch(module)
        for batch in batches:
            with torch.no_grad(), watch.counting(batch.is_real_BT):
                tiny.family.hidden_states(module, batch)
        loads.append(watch.step_loads())
    if loads[0] is None:
        assert tiny.family.model_type in ("qwen3_vl", "cosmos3_edge")
    else:
        assert torch.equal(*loads)
