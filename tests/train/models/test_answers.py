"""What a model answers equals what plain transformers generates from its export."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from vlm_train.answers import answer_sample, stop_ids_of
from vlm_train.loop import Precision
from vlm_train.models.pretrained import export_model
from vlm_train.shard_parameters import WholeForward
from vlm_train.writer import Sampling, Writer

IMAGE, IMAGES, VIDEO, TEXT, BOTH = range(5)
LENGTH = 10
ONE_FAMILY = pytest.mark.parametrize("tiny", ["qwen3_vl"], indirect=True)
FULL = Precision(master=torch.float32, compute=torch.float32)


def answered(tiny: Any, module: torch.nn.Module, index: int, **how: Any) -> Any:
    return answer_sample(
        tiny.cases[index].sample,
        tiny.rendered[index],
        renderer=tiny.renderer,
        family=tiny.family,
        writer=Writer(whole=WholeForward(module, tiny.family), precision=FULL),
        how=Sampling(**{"max_new_tokens": LENGTH, **how}),
    )


def plain_answer(model: Any, inputs: dict[str, Any], begin: int) -> list[int]:
    """What transformers generates after the first ``begin`` tokens."""
    cut = {
        name: value[:, :begin] if name in ("input_ids", "attention_mask", "mm_token_type_ids") else value
        for name, value in inputs.items()
    }
    return model.generate(**cut, do_sample=False, max_new_tokens=LENGTH)[0, begin:].tolist()


def by_hand(tiny: Any, module: torch.nn.Module, index: int) -> list[int]:
    """The likeliest token after all before it, LENGTH times, each from the whole sequence."""
    begin = tiny.rendered[index].spans[-1].supervised_begin
    sample, written = tiny.encode(index), []
    prompt_T = sample.input_ids_T[:begin]
    for _ in range(LENGTH):
        ids_T = torch.cat([prompt_T, torch.tensor(written, dtype=torch.int64)])
        whole = type(sample)(
            dataset="", sample_id="", input_ids_T=ids_T, labels_T=torch.full_like(ids_T, -100), media=sample.media
        )
        with torch.no_grad():
            written.append(int(tiny.family.logits(module, tiny.family.collate([[whole]]))[0, -1].argmax()))
    return written


def test_an_answer_is_what_plain_transformers_generates_from_the_export(
    tiny: Any, reference_loops: ModuleType, tmp_path: Path
) -> None:
    module = tiny.load()
    with torch.no_grad():  # no longer the weights that the folder has
        for parameter in module.parameters():
            parameter.mul_(1.1)
    export_model(module, str(tiny.folder), tmp_path / "export")
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path / "export", dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "export")
    stop_ids = stop_ids_of(module, tiny.renderer)
    for index in (IMAGE, IMAGES, VIDEO, TEXT, BOTH):
        begin = tiny.rendered[index].spans[-1].supervised_begin
        if index in (VIDEO, BOTH) and tiny.family.model_type == "nemotron_h_omni":
            expected = by_hand(tiny, module, index)  # transformers' own forward takes no such batch
        else:
            inputs = reference_loops.model_inputs(processor, *tiny.plain(index))
            expected = plain_answer(plain, inputs, begin)
        found = answered(tiny, module, index)
        assert found.num_tokens == len(expected)
        kept = expected[:-1] if expected[-1] in stop_ids else expected
        assert found.answer == tiny.renderer.decode(kept)
        assert found.reference == tiny.cases[index].sample.messages[-1]["content"][0]["text"]
        assert found.reference not in found.prompt


@ONE_FAMILY
def test_an_answer_ends_with_the_end_of_its_turn(tiny: Any) -> None:
    writer = Writer(whole=WholeForward(tiny.load(), tiny.family), precision=FULL)
    prompt, how = tiny.encode(IMAGE), Sampling(max_new_tokens=LENGTH)
    whole = writer.write(prompt, tiny.family, stop_ids=frozenset(), how=how)
    assert len(whole) == LENGTH
    first = whole.index(whole[3])
    assert writer.write(prompt, tiny.family, stop_ids=frozenset({whole[3], -1}), how=how) == whole[: first + 1]
    assert tiny.renderer.token_ids.turn_end in stop_ids_of(writer.whole.module, tiny.renderer)


@ONE_FAMILY
def test_drawn_tokens_depend_on_the_seed_alone(tiny: Any) -> None:
    module = tiny.load()
    drawn = [answered(tiny, module, TEXT, temperature=2.0, seed=seed).answer for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    torch.manual_seed(77)
    assert answered(tiny, module, TEXT, temperature=2.0, seed=1).answer == drawn[0]
    assert answered(tiny, module, TEXT, temperature=1e-4).answer == answered(tiny, module, TEXT).answer


@ONE_FAMILY
def test_the_mode_of_the_model_is_set_back(tiny: Any) -> None:
    module = tiny.load()
    writer = Writer(whole=WholeForward(module, tiny.family), precision=FULL)
    for is_training in (True, False):
        writer.whole.train(is_training)
        prompt = tiny.encode(TEXT)
        writer.write(prompt, tiny.family, stop_ids=frozenset(), how=Sampling(max_new_tokens=2))
        assert writer.whole.training == module.training == is_training
