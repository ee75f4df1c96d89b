"""What the small runs of the tests are made of: conversations as JSONL, slices of the demo, the TOML around them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

DEMO = Path(__file__).parent / "demo_data" / "jsonl"


def write_conversations(path: Path, pairs: Iterable[tuple[str, str]]) -> None:
    """A JSONL whose every line is one question and its answer."""
    roles = [[{"role": "user", "content": said}, {"role": "assistant", "content": answer}] for said, answer in pairs]
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in roles))


def demo_lines(**counts: int) -> list[str]:
    """The first lines of the demo's JSONL files, as many of each as said: ``demo_lines(demo_clipart=3)``."""
    return [line for name, count in counts.items() for line in _lines_of(name)[:count]]


def write_demo(path: Path, **counts: int) -> None:
    """A JSONL of ``demo_lines``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(demo_lines(**counts)) + "\n")


def write_demo_of_any_media(folder: Path) -> None:
    """JSONL files of pictures, several pictures, films and text: some samples from either end of the demo's."""
    folder.mkdir()
    for name, first, last in (("demo_clipart", 4, 1), ("demo_photos", 3, 0), ("demo_video", 4, 2)):
        lines = _lines_of(name)
        (folder / f"{name}.jsonl").write_text("\n".join(lines[:first] + lines[len(lines) - last :]) + "\n")


def _lines_of(name: str) -> list[str]:
    return (DEMO / f"{name}.jsonl").read_text().splitlines()


def model_and_mix(length: int | str, **policy: bool) -> str:
    """The part of a TOML that names ``{folder}``'s model, mixes and shards; ``length`` is model_max_length."""
    model = {"model_name_or_path": "{folder}/model", **policy}
    mix = {"root": "{folder}/mixes", "shards": "{folder}/shards", "num_workers": 1}
    return f"\n[policy]\nmodel_max_length = {length}\n{_keys(model)}\n[mix]\n{_keys(mix)}"


def source(name: str, path: str, **fields: str | float) -> str:
    """The part of a TOML that names one source."""
    return f"\n[[mix.source]]\n{_keys({'name': name, 'path': path, **fields})}"


def _keys(values: Mapping[str, str | float]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
