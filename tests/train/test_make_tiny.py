from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging as transformers_logging

from vlm_catalogs.errors import ConfigError
from vlm_train.make_tiny import FAMILIES, make_tiny

CONVERSATION = [
    {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
    {"role": "user", "content": [{"type": "image", "image": "image_0"}, {"type": "text", "text": "What is it?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "A cat."}], "reasoning_content": "Whiskers."},
]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_writes_the_same_bytes_and_another_seed_other_weights(family: str, tmp_path: Path) -> None:
    random_state = torch.random.get_rng_state()
    make_tiny(family, tmp_path / "first")
    make_tiny(family, tmp_path / "again")
    make_tiny(family, tmp_path / "other", seed=1)
    assert torch.equal(random_state, torch.random.get_rng_state())
    first, again, other = (_contents(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again
    assert {name for name in first if first[name] != other[name]} == {"model.safetensors"}


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_transformers_loads_every_weight_and_the_processor(family: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    make_tiny(family, folder)
    model, info = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    processor = AutoProcessor.from_pretrained(folder)
    assert not any(info.values())
    assert model.config.model_type == family
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config.image_token_id == processor.image_token_id
    assert model.config.video_token_id == processor.video_token_id
    assert model.generation_config.pad_token_id == processor.tokenizer.pad_token_id


@pytest.mark.parametrize("family", FAMILIES)
def test_the_chat_template_writes_turns_as_the_official_ones_do(family: str, tmp_path: Path) -> None:
    make_tiny(family, tmp_path / "model")
    processor = AutoProcessor.from_pretrained(tmp_path / "model")
    text = processor.apply_chat_template(CONVERSATION, tokenize=False)
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
    assert text.count(processor.image_token) == 1
    assert "<|im_start|>assistant\n<think>\nWhiskers.\n</think>\n" in text
    assert text.endswith("A cat.<|im_end|>\n")
    prompt = processor.apply_chat_template(CONVERSATION[:2], tokenize=False, add_generation_prompt=True)
    assert prompt.endswith("What is it?<|im_end|>\n<|im_start|>assistant\n")


def test_any_text_survives_the_tokenizer(tmp_path: Path) -> None:
    make_tiny("qwen3_vl", tmp_path / "model")
    tokenizer = AutoProcessor.from_pretrained(tmp_path / "model").tokenizer
    text = "Größe: 12 µm, 図 \U0001f600\n\ttabs and  spaces"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_folder_with_files_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(ConfigError, match="not an empty folder"):
        make_tiny("qwen3_vl", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_unknown_family_is_an_error_that_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="qwen3_vl_moe"):
        make_tiny("qwen9", tmp_path / "model")


def test_no_progress_bar_of_a_library_is_drawn(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    transformers_logging.enable_progress_bar()
    make_tiny("qwen3_vl", tmp_path / "model")
    assert "Writing" not in capfd.readouterr().err
