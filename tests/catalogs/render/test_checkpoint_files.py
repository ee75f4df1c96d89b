"""Checkpoints as people have them: saved by transformers 5, downloaded from the hub, incomplete, or not there."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from vlm_catalogs.errors import ConfigError
from vlm_catalogs.render import Renderer, RenderSettings, load_renderer
from vlm_catalogs.sample import MediaFacts

SETTINGS = RenderSettings(profile="normal", model_max_length=1024)
CONVERSATION = [
    {
        "role": "user",
        "content": [
            {"type": "image", "image": "image_0"},
            {"type": "video", "video": "video_0"},
            {"type": "text", "text": "?"},
        ],
    },
    {"role": "assistant", "content": [{"type": "text", "text": "!"}]},
]


@pytest.fixture
def checkpoint(family: str, tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of a tiny checkpoint, without weights."""
    return Path(shutil.copytree(tiny(family), tmp_path / "copy", ignore=shutil.ignore_patterns("*.safetensors")))


def test_the_layout_of_hub_checkpoints_renders_the_same(
    family: str,
    checkpoint: Path,
    renderer_of: Callable[..., Renderer],
    image: Callable[..., MediaFacts],
    video: Callable[..., MediaFacts],
) -> None:
    """preprocessor_config.json and video_preprocessor_config.json, the template in tokenizer_config.json."""
    nested = json.loads((checkpoint / "processor_config.json").read_text())
    (checkpoint / "preprocessor_config.json").write_text(json.dumps(nested.pop("image_processor")))
    (checkpoint / "video_preprocessor_config.json").write_text(json.dumps(nested.pop("video_processor")))
    (checkpoint / "processor_config.json").unlink()
    template = checkpoint / "chat_template.jinja"
    tokenizer_config = json.loads((checkpoint / "tokenizer_config.json").read_text())
    named = [{"name": "tools", "template": "x"}, {"name": "default", "template": template.read_text()}]
    (checkpoint / "tokenizer_config.json").write_text(json.dumps({**tokenizer_config, "chat_template": named}))
    template.unlink()
    media = [image("image_0", 97, 61), video("video_0", 120, 67, frames=31, fps=10.0)]
    downloaded = load_renderer(str(checkpoint), settings=SETTINGS).render(CONVERSATION, media)
    saved = renderer_of(family).render(CONVERSATION, media)
    assert downloaded.input_ids_T.tolist() == saved.input_ids_T.tolist()
    assert downloaded.media == saved.media


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja", "processor_config.json", "config.json"])
def test_a_missing_file_is_named_with_the_checkpoint(name: str, checkpoint: Path) -> None:
    (checkpoint / name).unlink()
    with pytest.raises(ConfigError) as caught:
        load_renderer(str(checkpoint), settings=SETTINGS)
    assert str(checkpoint) in str(caught.value)
    assert name in str(caught.value)


def test_everything_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config.json, tokenizer.json, a chat template .*, processor_config.json or"):
        load_renderer(str(tmp_path), settings=SETTINGS)


def test_a_damaged_file_is_named(checkpoint: Path) -> None:
    (checkpoint / "processor_config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"processor_config.json is not JSON"):
        load_renderer(str(checkpoint), settings=SETTINGS)


def test_a_damaged_tokenizer_is_named(checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").write_text('{"model": {}}')
    with pytest.raises(ConfigError, match=r"tokenizer.json cannot be read"):
        load_renderer(str(checkpoint), settings=SETTINGS)


def test_a_family_that_cannot_be_rendered_is_refused(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "model_type": "llava"}))
    with pytest.raises(ConfigError, match="model_type 'llava' cannot be rendered; qwen3_vl"):
        load_renderer(str(checkpoint), settings=SETTINGS)


def test_a_config_with_another_image_token_than_the_tokenizer_is_refused(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "image_token_id": 18}))
    with pytest.raises(ConfigError, match=r"config.json says image_token_id = 18, its tokenizer gives"):
        load_renderer(str(checkpoint), settings=SETTINGS)


def test_a_folder_that_is_not_there_is_said_to_be_so() -> None:
    with pytest.raises(ConfigError, match=r"\./models/none: no such folder"):
        load_renderer("./models/none", settings=SETTINGS)


def test_a_hub_name_that_is_not_in_the_cache_says_so_offline(tmp_path: Path) -> None:
    code = (
        "from vlm_catalogs.render import *\n"
        "from vlm_catalogs.errors import ConfigError\n"
        "try: load_renderer('owner/model', settings=RenderSettings(profile='i4', model_max_length=64))\n"
        "except ConfigError as error: print(error)"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "owner/model: no local folder of this name" in told.stdout
    assert "offline" in told.stdout


def test_ids_equal_auto_tokenizer_for_a_checkpoint_with_qwens_own_tokenizer_class(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    """Hub checkpoints name Qwen2Tokenizer, which transformers rebuilds from the vocabulary, not from tokenizer.json."""
    folder = qwen_checkpoint(tiny("qwen3_vl"), tmp_path / "qwen")
    renderer = load_renderer(str(folder), settings=SETTINGS)
    texts = ["Hello  wörld 1234\n\n\n  def f(x):\n\treturn 'x'", "ﬁne ①  e\u0301", "\n\nanswer", "it's  THEY'LL 🐱\r\n"]
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    assert type(tokenizer).__name__.startswith("Qwen2Tokenizer")
    for text in texts:
        text = f"<|im_start|>user\n{text}<|im_end|>\n"
        assert renderer.encode_text(text) == tokenizer(text)["input_ids"]


@pytest.mark.parametrize("answer", ["Four.", "\nFour.", "\n\n Four."])
def test_a_newline_that_merges_with_the_headers_is_not_learned(
    answer: str, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    """Qwen's tokenizer joins newlines: the header's and the answer's become one token, which belongs to the header."""
    renderer = load_renderer(str(qwen_checkpoint(tiny("qwen3_vl"), tmp_path / "qwen")), settings=SETTINGS)
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "text", "text": "2+2?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]
    rendered = renderer.render(messages, [])
    header = renderer.encode_text("<|im_start|>assistant\n")
    begin = rendered.spans[1].begin
    assert (rendered.input_ids_T[begin : begin + 3].tolist() == header) == (not answer.startswith("\n"))
    labels = rendered.labels_T
    assert renderer.decode(labels[labels >= 0].tolist()) == answer.lstrip("\n") + "<|im_end|>"
    assert (labels[:-1] >= 0).sum() == rendered.supervised_tokens


def qwen_checkpoint(source: Path, folder: Path) -> Path:
    """A copy of the tiny Qwen checkpoint whose tokenizer is built as the official one is."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    special = [
        token.content
        for token in Tokenizer.from_file(str(folder / "tokenizer.json")).get_added_tokens_decoder().values()
    ]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer, tokenizer.decoder = normalizers.NFC(), decoders.ByteLevel()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(["user\nassistant\n\nsystem\n\n\nHello\n\n world\n\n"] * 9, trainer)
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = json.loads((folder / "config.json").read_text())
    ids = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    config |= {name: tokenizer.token_to_id(token) for name, token in ids.items()}
    (folder / "config.json").write_text(json.dumps(config))
    named = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**named, "tokenizer_class": "Qwen2Tokenizer"}))
    return folder
