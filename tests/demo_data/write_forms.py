"""Writes the demo's samples as an i4 tree, as JSONL of messages and as a LLaVA array; same samples, same bytes."""

import io
import json
import pickle
import shutil
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from conversations import DemoSample, Message, content_items

Members = Iterable[tuple[str, bytes]]


def write_i4_split(
    root: Path, dataset: str, tars: Mapping[str, Sequence[DemoSample]], *, wdinfo: str, media: Path, bare: bool
) -> None:
    """Writes text and media tars and their wdinfo below ``root/dataset``; ``bare``: lone media stand unpickled."""
    for entry, samples in tars.items():
        texts = ((f"{sample.name}.json", text_member(sample)) for sample in samples)
        write_tar(root / dataset / "texts" / entry, texts)
        write_tar(root / dataset / "media" / entry, (media_member(sample, media, bare=bare) for sample in samples))
    counts = [len(samples) for samples in tars.values()]
    record = {
        "root": dataset,
        "data_keys": ["texts", "media"],
        "data_list": list(tars),
        "data_list_key_count": counts,
        "total_key_count": sum(counts),
        "chunk_size": max(counts),
    }
    (root / dataset / wdinfo).write_text(json.dumps(record, indent=1) + "\n")


def text_member(sample: DemoSample) -> bytes:
    """The JSON of one text member, in the spelling that the sample asks for."""
    names = i4_names(sample)
    written = [renamed(messages, names) for messages in sample.conversations]
    spelled: Any = written[0] if len(written) == 1 else written
    if sample.i4_text == "messages":
        spelled = {"messages": written[0]}
    if sample.i4_text == "conversations":
        spelled = {"conversations": llava_turns(written[0])}
    return json.dumps(spelled, ensure_ascii=False).encode()


def media_member(sample: DemoSample, media: Path, *, bare: bool) -> tuple[str, bytes]:
    """Name and bytes of one media member: a lone medium as it is if ``bare``, else a pickled dict (maybe empty)."""
    contents = {name: (media / file).read_bytes() for file, name in i4_names(sample).items()}
    if bare and len(contents) == 1:
        (file,) = sample.media
        return sample.name + Path(file).suffix, next(iter(contents.values()))
    return f"{sample.name}.pkl", pickle.dumps(contents, protocol=4)


def i4_names(sample: DemoSample) -> dict[str, str]:
    """File -> ``image_0``, ``video_0``, ... by first reference; used twice, stored once."""
    counts = {"image": 0, "video": 0}
    names = {}
    for file in sample.media:
        kind = "video" if file.startswith("video/") else "image"
        names[file] = f"{kind}_{counts[kind]}"
        counts[kind] += 1
    return names


def renamed(messages: Sequence[Message], names: Mapping[str, str]) -> list[Message]:
    """The messages with other names for their media."""
    return [{**message, "content": renamed_content(message["content"], names)} for message in messages]


def renamed_content(content: Any, names: Mapping[str, str]) -> Any:
    """The content of one message with other names for its media; text stays as it is."""
    if isinstance(content, str):
        return content
    return [item if item["type"] == "text" else {**item, item["type"]: names[item[item["type"]]]} for item in content]


def llava_turns(messages: Sequence[Message]) -> list[dict[str, str]]:
    """The turns in LLaVA's words: ``from`` and ``value``, with tags that mark the place of each medium."""
    speakers = {"system": "system", "user": "human", "assistant": "gpt"}
    return [{"from": speakers[message["role"]], "value": tagged_text(message)} for message in messages]


def tagged_text(message: Message) -> str:
    """The text of a message with ``<image>`` and ``<video>`` on lines of their own."""
    return "\n".join(item["text"] if item["type"] == "text" else f"<{item['type']}>" for item in content_items(message))


def write_tar(target: Path, members: Members) -> None:
    """Writes a tar without owner, mode or time of this machine, so that the same samples give the same bytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))


def write_jsonl(folder: Path, name: str, samples: Sequence[DemoSample], *, media: Path) -> None:
    """Writes ``folder/<name>.jsonl``, and the media that it names below ``folder/media``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.jsonl").write_text("".join(jsonl_line(sample) + "\n" for sample in samples))
    copy_media(samples, media, folder / "media")


def jsonl_line(sample: DemoSample) -> str:
    """One line: ``id`` and ``messages``; a list of conversations where there are alternatives."""
    names = {file: f"media/{file}" for file in sample.media}
    written = [renamed(messages, names) for messages in sample.conversations]
    messages: Any = written[0] if len(written) == 1 else written
    return json.dumps({"id": sample.name, "messages": messages}, ensure_ascii=False)


def write_llava(folder: Path, samples: Sequence[DemoSample], *, media: Path) -> None:
    """Writes ``folder/demo_llava.json`` and its media."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [llava_row(sample) for sample in samples]
    (folder / "demo_llava.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    copy_media(samples, media, folder / "media")


def llava_row(sample: DemoSample) -> dict[str, Any]:
    """One row; ``image`` and ``video`` are a string for one medium, a list for several."""
    row: dict[str, Any] = {"id": sample.name}
    for kind in ("image", "video"):
        files = [f"media/{file}" for file in sample.media if file.startswith("video/") == (kind == "video")]
        if files:
            row[kind] = files[0] if len(files) == 1 else files
    return row | {"conversations": llava_turns(sample.conversations[0])}


def copy_media(samples: Sequence[DemoSample], media: Path, target: Path) -> None:
    """Copies what the samples refer to, unless it stands there already."""
    for file in {file: None for sample in samples for file in sample.media}:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        if (target / file).resolve() != (media / file).resolve():
            shutil.copyfile(media / file, target / file)
