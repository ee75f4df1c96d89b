"""JSONL: ``<dataset>.jsonl`` with a record a line, and its media as files below ``media/<dataset>``."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vlm_catalogs import json_text
from vlm_catalogs.sample import Sample
from vlm_prep.conversation import TAG
from vlm_prep.export.records import file_suffix, record_of, used_names

SAMPLES_PER_FOLDER = 1000


def write_jsonl(dataset: str, samples: Iterable[Sample], folder: Path) -> int:
    """Write one dataset; gives the number of samples whose unused media had to be left out."""
    left_out = 0
    with (folder / f"{dataset}.jsonl").open("w") as file:
        for number, sample in enumerate(samples):
            below = Path("media") / dataset / f"{number // SAMPLES_PER_FOLDER:06d}"
            paths = {
                facts.name: (below / f"{number:09d}-{file_suffix(facts, position)}").as_posix()
                for position, facts in enumerate(sample.media_table)
            }
            unused = _unused_media(sample, paths)
            if unused and _has_tag(sample):
                left_out, unused = left_out + 1, {}
            record = record_of(sample, lambda kind, name, paths=paths: {kind: paths[name]})  # type: ignore[misc]
            _write_media(sample, paths, folder)
            file.write(json_text.dumps({**record, **unused}) + "\n")
    return left_out


def _write_media(sample: Sample, paths: dict[str, str], folder: Path) -> None:
    for name, path in paths.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(sample.medium(name))


def _unused_media(sample: Sample, paths: dict[str, str]) -> dict[str, Any]:
    """The record's lists of media that no item uses: what is listed belongs to the sample all the same."""
    unused = [facts for facts in sample.media_table if facts.name not in used_names(sample)]
    lists = {f"{kind}s": [paths[facts.name] for facts in unused if facts.kind == kind] for kind in ("image", "video")}
    return {key: found for key, found in lists.items() if found}


def _has_tag(sample: Sample) -> bool:
    """Does a text hold a tag? In a record that lists media, it would mean one of them."""
    conversations = [sample.messages, *sample.alternatives]
    items = [item for conversation in conversations for message in conversation for item in message["content"]]
    return any(TAG.search(item["text"]) for item in items if item["type"] == "text")
