"""The files of a checkpoint that rendering needs: tokenizer, chat template and processor settings; no weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_catalogs import json_text
from vlm_catalogs.errors import ConfigError

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"
PROCESSOR = "processor_config.json"
IMAGE_PROCESSOR = "preprocessor_config.json"
VIDEO_PROCESSOR = "video_preprocessor_config.json"
TEMPLATE = "chat_template.jinja"
TEMPLATE_JSON = "chat_template.json"
FILES = (
    CONFIG,
    TOKENIZER,
    TOKENIZER_CONFIG,
    SPECIAL_TOKENS,
    PROCESSOR,
    IMAGE_PROCESSOR,
    VIDEO_PROCESSOR,
    TEMPLATE,
    TEMPLATE_JSON,
)

SPECIAL_TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""``SPECIAL_TOKENS_ATTRIBUTES`` of transformers 5.23: what chat templates may refer to by name."""

ReadFile = Callable[[str], bytes | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFiles:
    """What rendering reads of one checkpoint."""

    model: str
    config: Mapping[str, Any]
    tokenizer: bytes
    tokenizer_config: Mapping[str, Any]
    special_tokens: Mapping[str, str]
    """``bos_token`` and the like, as chat templates see them."""
    chat_template: str
    image_processor: Mapping[str, Any]
    video_processor: Mapping[str, Any]
    processor: Mapping[str, Any]
    """The outer part of processor_config.json, {} where there is none."""

    @property
    def model_type(self) -> str:
        """``model_type`` of config.json."""
        return str(self.config.get("model_type"))


def read_checkpoint_files(model: str, *, revision: str | None = None) -> CheckpointFiles:
    """The files of a local folder, or of a hub model (from the cache, or downloaded where the network allows).

    Raises ConfigError that names the model and everything that is missing.
    """
    read = _reader(Path(model) if Path(model).is_dir() else _hub_snapshot(model, revision))
    objects = {name: _read_object(model, name, read) for name in (CONFIG, TOKENIZER_CONFIG, SPECIAL_TOKENS, PROCESSOR)}
    processor = objects[PROCESSOR] or {}
    image = processor.get("image_processor") or _read_object(model, IMAGE_PROCESSOR, read)
    video = processor.get("video_processor") or _read_object(model, VIDEO_PROCESSOR, read) or image
    tokenizer, tokenizer_config = read(TOKENIZER), objects[TOKENIZER_CONFIG] or {}
    template = _chat_template(model, read, tokenizer_config)
    missing = [
        name
        for name, found in (
            (CONFIG, objects[CONFIG]),
            (TOKENIZER, tokenizer),
            (f"a chat template ({TEMPLATE} or in {TOKENIZER_CONFIG})", template),
            (f"{PROCESSOR} or {IMAGE_PROCESSOR}", image),
        )
        if not found
    ]
    if missing:
        raise ConfigError(f"{model}: cannot be rendered, missing: {', '.join(missing)}; copy them from the checkpoint")
    config = objects[CONFIG]
    assert config and tokenizer and template and image and video
    return CheckpointFiles(
        model=model,
        config=config,
        tokenizer=tokenizer,
        tokenizer_config=tokenizer_config,
        special_tokens=_special_tokens(tokenizer_config, objects[SPECIAL_TOKENS] or {}),
        chat_template=template,
        image_processor=image,
        video_processor=video,
        processor={name: value for name, value in processor.items() if not isinstance(value, dict)},
    )


def _reader(folder: Path) -> ReadFile:
    def read(name: str) -> bytes | None:
        path = folder / name
        return path.read_bytes() if path.is_file() else None

    return read


def _hub_snapshot(model: str, revision: str | None) -> Path:
    """The cached folder of a hub model's small files, brought up to date where the network allows."""
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise ConfigError(f"{model}: no such folder, and not a name of the form owner/model")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(FILES)))
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"{model}: no local folder of this name, and its tokenizer and processor could not be loaded from the hub, "
            f"nor offline from the hub's cache: {reason}; download the checkpoint and give its folder"
        ) from error


def _read_object(model: str, name: str, read: ReadFile) -> dict[str, Any] | None:
    content = read(name)
    if content is None:
        return None
    try:
        value = json_text.loads(content)
    except ValueError as error:
        raise ConfigError(f"{model}: {name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{model}: {name} must hold a JSON object")
    return value


def _chat_template(model: str, read: ReadFile, tokenizer_config: Mapping[str, Any]) -> str | None:
    """The processor's template, else the tokenizer's; of several named ones the ``default``."""
    if content := read(TEMPLATE):
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{model}: {TEMPLATE} is not UTF-8: {error}; copy it anew") from error
    template = (_read_object(model, TEMPLATE_JSON, read) or {}).get("chat_template")
    template = template or tokenizer_config.get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _special_tokens(tokenizer_config: Mapping[str, Any], older: Mapping[str, Any]) -> dict[str, str]:
    found = {name: tokenizer_config.get(name) or older.get(name) for name in SPECIAL_TOKEN_NAMES}
    texts = {name: value.get("content") if isinstance(value, dict) else value for name, value in found.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}
