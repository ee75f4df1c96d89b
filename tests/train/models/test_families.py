"""What holds for every family: exact padding and pixels, whole gradients, learning, and equality with plain loops."""

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from vlm_catalogs.render.rendered import IGNORED
from vlm_train.models import load_family
from vlm_train.models.pretrained import enable_gradient_checkpointing, export_model

IMAGE, IMAGES, VIDEO, TEXT, BOTH = range(5)
SUBSETS = ((IMAGE,), (IMAGES,), (VIDEO,), (TEXT,), (TEXT, VIDEO), (IMAGE, TEXT), (VIDEO, IMAGES, TEXT, IMAGE), (BOTH,))


def summed_loss(logits_BTV: torch.Tensor, labels_BT: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(
        logits_BTV[:, :-1].flatten(0, 1).float(), labels_BT[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
    )


def loss_of(tiny: Any, module: torch.nn.Module, batch: Any) -> torch.Tensor:
    return summed_loss(tiny.family.logits(module, batch), batch.labels_BT) / batch.num_supervised_tokens


def test_a_padded_batch_gives_the_logits_of_each_sample_alone(tiny: Any) -> None:
    module = tiny.load().train()
    with torch.no_grad():
        together = tiny.family.logits(module, tiny.batch())
        for index in range(4):
            alone = tiny.family.logits(module, tiny.batch(index))
            length = alone.shape[1]
            assert (together[index, :length] - alone[0]).abs().max() <= 1e-5


def test_logits_equal_the_models_own_forward(tiny: Any, reference_loops: ModuleType) -> None:
    module = tiny.load()
    plain = AutoModelForImageTextToText.from_pretrained(tiny.folder, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(tiny.folder)
    with torch.no_grad():
        for index, sample in enumerate(tiny.plain(IMAGE, IMAGES, VIDEO, TEXT)):
            expected = reference_loops.logits_of(plain, reference_loops.model_inputs(processor, sample))
            assert (tiny.family.logits(module, tiny.batch(index)) - expected).abs().max() <= 1e-6


def test_pixels_and_grids_equal_the_processors_own(tiny: Any, reference_loops: ModuleType) -> None:
    processor = AutoProcessor.from_pretrained(tiny.folder)
    for index in (IMAGE, IMAGES, VIDEO):
        inputs = reference_loops.model_inputs(processor, *tiny.plain(index))
        name = "pixel_values_videos" if index == VIDEO else "pixel_values"
        encoded = torch.cat([medium.pixels for medium in tiny.encode(index).media])
        assert torch.equal(encoded, inputs[name])


def test_a_video_before_an_image_keeps_its_place(tiny: Any, reference_loops: ModuleType) -> None:
    module, batch = tiny.load(), tiny.batch(BOTH, IMAGE)
    assert [medium.kind for medium in batch.media] == ["video", "image", "image"]
    with torch.no_grad():
        logits = tiny.family.logits(module, batch)[0, : batch.lengths[0]]
        if tiny.family.model_type == "nemotron_h_omni":
            expected = omni_by_hand(module, tiny.encode(BOTH))
        else:
            processor = AutoProcessor.from_pretrained(tiny.folder)
            expected = module(**reference_loops.model_inputs(processor, *tiny.plain(BOTH))).logits[0]
    assert (logits - expected).abs().max() <= 1e-5


def omni_by_hand(module: Any, sample: Any) -> torch.Tensor:
    """Each placeholder replaced by its feature, one after the other."""
    module.vision_model.eval()
    video, image = sample.media
    grid = torch.tensor([image.grid[1:]])
    features = [
        *module.get_video_features(video.pixels, return_dict=True).pooler_output.flatten(0, 1),
        *module.get_image_features(image.pixels, grid, return_dict=True).pooler_output[0],
    ]
    embeds = module.get_input_embeddings()(sample.input_ids_T).clone()
    places = (sample.input_ids_T == module.config.image_token_id).nonzero().flatten().tolist()
    for place, feature in zip(places, features, strict=True):
        embeds[place] = feature
    return module(inputs_embeds=embeds[None]).logits[0]


def test_blank_media_keep_the_shape_and_supervise_nothing(tiny: Any) -> None:
    for index in (IMAGES, VIDEO):
        sample, rendered = tiny.cases[index].sample, tiny.rendered[index]
        whole, blank = tiny.encode(index), tiny.family.encode(sample, rendered, blank=True)
        assert torch.equal(blank.input_ids_T, whole.input_ids_T)
        assert [medium.pixels.shape for medium in blank.media] == [medium.pixels.shape for medium in whole.media]
        assert not any(
            torch.equal(one.pixels, other.pixels) for one, other in zip(blank.media, whole.media, strict=True)
        )
        assert (blank.labels_T == IGNORED).all()
        assert tiny.family.collate([[blank]]).num_supervised_tokens == 0


@pytest.mark.parametrize("size", [(300, 40), (37, 211), (33, 33), (128, 128), (640, 480)])
def test_pixels_of_any_size_equal_the_processors_own(tiny: Any, size: tuple[int, int]) -> None:
    processor = AutoProcessor.from_pretrained(tiny.folder)
    case = tiny.one_picture(*size)
    rendered = tiny.renderer.render(case.sample.messages, case.sample.media_table)
    expected = processor.image_processor(list(case.images), return_tensors="pt")["pixel_values"]
    assert torch.equal(tiny.family.encode(case.sample, rendered).media[0].pixels, expected)


def test_a_plan_that_the_pixels_do_not_fill_stops_at_once(tiny: Any) -> None:
    sample, rendered = tiny.cases[IMAGE].sample, tiny.rendered[IMAGE]
    plan = rendered.media[0]
    turned = replace(rendered, media=(replace(plan, grid=(1, plan.grid[2], plan.grid[1])),))
    with pytest.raises(AssertionError, match="was planned as"):
        tiny.family.encode(sample, turned)
    fewer = replace(rendered, media=(replace(plan, num_tokens=plan.num_tokens - 1),))
    with pytest.raises(AssertionError, match="placeholder tokens for"):
        tiny.family.encode(sample, fewer)


def test_tokens_and_labels_equal_the_processors_own(tiny: Any, reference_loops: ModuleType) -> None:
    processor = AutoProcessor.from_pretrained(tiny.folder)
    for index, sample in enumerate(tiny.plain(IMAGE, IMAGES, VIDEO, TEXT)):
        expected = reference_loops.model_inputs(processor, sample)["input_ids"]
        encoded = tiny.encode(index)
        assert torch.equal(encoded.input_ids_T, expected[0])
        assert torch.equal(encoded.labels_T, reference_loops.answer_labels(processor.tokenizer, expected)[0])


@pytest.mark.parametrize("subset", SUBSETS)
def test_every_parameter_gets_a_gradient_whatever_the_media(tiny: Any, subset: tuple[int, ...]) -> None:
    module = tiny.load().train()
    loss_of(tiny, module, tiny.batch(*subset)).backward()
    without = [name for name, parameter in module.named_parameters() if parameter.grad is None]
    assert without == []
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


def test_the_vision_tower_learns_from_images_and_from_videos_and_from_nothing_else(tiny: Any) -> None:
    for index, learns in ((IMAGE, True), (VIDEO, True), (TEXT, False)):
        module = tiny.load().train()
        loss_of(tiny, module, tiny.batch(index)).backward()
        tower = [
            p.grad.abs().max().item()
            for name, p in module.named_parameters()
            if "vision_model" in name or "visual" in name
        ]
        assert (max(tower) > 0) is learns


def test_four_samples_of_all_kinds_are_learned_by_heart(tiny: Any) -> None:
    module = tiny.load().train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
    batch = tiny.batch()
    for _ in range(80):
        loss = loss_of(tiny, module, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss_of(tiny, module, batch) < 0.1


def test_the_first_five_losses_equal_the_plain_loop(tiny: Any, reference_loops: ModuleType) -> None:
    order = [(IMAGE, TEXT), (VIDEO, IMAGES), (TEXT,), (IMAGES, IMAGE), (VIDEO, TEXT, IMAGE)]
    plain_steps = [tiny.plain(*step) for step in order]
    expected = reference_loops.reference_losses(tiny.folder, plain_steps, lr=1e-3, weight_decay=0.01)
    module = tiny.load().train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.01)
    losses = []
    for step in order:
        loss = loss_of(tiny, module, tiny.batch(*step))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses == pytest.approx(expected, abs=1e-5)


def test_gradient_checkpointing_changes_no_gradient(tiny: Any) -> None:
    module, checkpointed = tiny.load().train(), tiny.load().train()
    enable_gradient_checkpointing(checkpointed)
    batch = tiny.batch()
    for each in (module, checkpointed):
        loss_of(tiny, each, batch).backward()
    for (name, parameter), (_, other) in zip(module.named_parameters(), checkpointed.named_parameters(), strict=True):
        assert torch.equal(parameter.grad, other.grad), name


def test_an_export_reloads_in_plain_transformers_with_equal_logits_keys_and_dtypes(tiny: Any, tmp_path: Path) -> None:
    module = tiny.load()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.linspace(0, 1e-2, parameter.numel()).view_as(parameter))
    export_model(module, str(tiny.folder), tmp_path / "export")
    reloaded, info = AutoModelForImageTextToText.from_pretrained(tmp_path / "export", output_loading_info=True)
    assert not any(info.values())
    ours, theirs = module.state_dict(), reloaded.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) and ours[key].dtype == theirs[key].dtype for key in ours)
    family = load_family(str(tmp_path / "export"), tiny.family.model_type)
    with torch.no_grad():
        expected = tiny.family.logits(module, tiny.batch())
        assert (family.logits(reloaded, tiny.batch()) - expected).abs().max() <= 1e-6  # it convolves patches
        assert torch.equal(family.logits(family.prepare(reloaded), tiny.batch()), expected)
    AutoProcessor.from_pretrained(tmp_path / "export")
    assert {path.name for path in (tmp_path / "export").iterdir()} == {path.name for path in tiny.folder.iterdir()}


def test_an_export_says_of_the_model_what_its_base_says(tiny: Any, tmp_path: Path) -> None:
    export_model(tiny.load(), str(tiny.folder), tmp_path / "export")
    base, exported = (json.loads((folder / "config.json").read_text()) for folder in (tiny.folder, tmp_path / "export"))
    for config in (base, exported):
        for part in (config, config["text_config"], config["vision_config"]):
            part.pop("dtype", None)
    assert exported == base


def test_bfloat16_weights_and_autocast_stay_near_float32(tiny: Any) -> None:
    batch, exact = tiny.batch(), tiny.load().train()
    half = tiny.load(torch.bfloat16).train()
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        expected = torch.nn.functional.log_softmax(tiny.family.logits(exact, batch), dim=-1)
        lossy = tiny.family.logits(half, batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = tiny.family.logits(exact, batch)
    for logits in (lossy, cast):
        assert (torch.nn.functional.log_softmax(logits.float(), dim=-1) - expected).abs().max() < 0.1
