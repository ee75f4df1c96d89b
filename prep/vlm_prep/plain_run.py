"""Samples of one plain conversation about one ordinary image, many together, column by column.

Nearly every sample of an i4 tar is one. What is stored and indexed of them is, byte for byte, what ``build_sample``
makes of each of them (a test holds the two equal), without a dozen objects for every sample.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import orjson

from vlm_catalogs.hashing import content_hash, joined_hashes
from vlm_prep.built_sample import FIRST_NAMES, BuiltMedium, BuiltSample, image_row
from vlm_prep.media_facts import SNIFFED_BYTES, HeaderFacts, sniff_format
from vlm_prep.quick_header import TURNED_ORIENTATIONS, read_quickly
from vlm_prep.raw_sample import Origin
from vlm_prep.shard_file import Buffer
from vlm_prep.stored_texts import NAME, Place, StoredTexts, plain_pieces

RUN_SAMPLES = 512
"""A run has at most so many samples."""
FEW_SAMPLES = 16
"""So many are kept one by one: columns cost more than they save."""
MAX_TEXT_BYTES = 1 << 16
MAX_MEDIUM_BYTES = 1 << 24
"""Larger ones stand in no run: the texts of a run are bounded, and a shard has room for each of its samples."""
IMAGE_NAME = FIRST_NAMES["image"]


class PlainFacts(NamedTuple):
    """What is read of the text and the image of one sample."""

    messages: str
    """Canonical, the image under its canonical name."""
    wording: str
    num_turns: int
    text_chars: int
    format: str
    width: int
    """Upright, as in HeaderFacts."""
    height: int
    mode: str
    orientation: int | None


def read_plain_facts(text: memoryview, content: memoryview) -> PlainFacts | None:
    """The facts of a sample whose image is a bare member; None where it is not plain."""
    if len(text) > MAX_TEXT_BYTES or len(content) > MAX_MEDIUM_BYTES:
        return None
    try:
        value = orjson.loads(text)
        image_format = sniff_format(bytes(content[:SNIFFED_BYTES]))
    except ValueError:
        return None
    messages = value["messages"] if type(value) is dict and [*value] == ["messages"] else value
    places: list[Place] = []
    pieces = plain_pieces(messages, places)
    if pieces is None or image_format is None or len(places) != 1 or places[0].kind != "image":
        return None
    header = read_quickly(content, image_format)
    if header is None:
        return None
    stored, wording, text_chars = pieces
    width, height = header.width, header.height
    if header.orientation in TURNED_ORIENTATIONS:
        width, height = height, width
    return PlainFacts(
        stored.replace(NAME, IMAGE_NAME),
        wording,
        len(messages),
        text_chars,
        image_format,
        width,
        height,
        header.mode,
        header.orientation,
    )


@dataclass(slots=True)
class PlainRun:
    """Samples that follow each other in one tar, as the columns of what is stored and indexed."""

    source_uri: str
    sample_ids: Sequence[str]
    members: Sequence[str]
    byte_offsets: Sequence[int]
    source_names: Sequence[str]
    """File names of the images."""
    contents: Sequence[memoryview]
    hashes: Sequence[str]
    text_hashes: Sequence[str]
    messages: Sequence[str]
    num_turns: Sequence[int]
    text_chars: Sequence[int]
    formats: Sequence[str]
    widths: Sequence[int]
    heights: Sequence[int]
    modes: Sequence[str]
    orientations: Sequence[int | None]

    def __len__(self) -> int:
        return len(self.sample_ids)

    def payloads(self, dataset: str) -> list[Sequence[Buffer]]:
        """The MDS columns by name, as ``BuiltSample.payloads`` gives them of one sample."""
        same = [b"[]", dataset.encode(), b"{}"]
        alternatives, datasets, metas = ([content] * len(self) for content in same)
        tables = [f"[{row}]".encode() for row in self._media_rows()]
        messages = [text.encode() for text in self.messages]
        ids = [sample_id.encode() for sample_id in self.sample_ids]
        return [alternatives, datasets, self.contents, tables, messages, metas, ids]

    def samples(self) -> Iterator[BuiltSample]:
        """The samples one by one."""
        for at, row in enumerate(self._media_rows()):
            origin = Origin(self.sample_ids[at], self.source_uri, self.members[at], self.byte_offsets[at])
            texts = StoredTexts(
                self.messages[at], "[]", self.text_hashes[at], 1, self.num_turns[at], self.text_chars[at]
            )
            size = self.widths[at], self.heights[at]
            header = HeaderFacts("image", self.formats[at], *size, self.modes[at], self.orientations[at], False)
            medium = BuiltMedium(IMAGE_NAME, self.source_names[at], self.contents[at], header, self.hashes[at])
            yield BuiltSample(origin, None, texts, [medium], f"[{row}]", "{}")

    def _media_rows(self) -> list[str]:
        """The text of the one row of each ``media_table``."""
        columns = self.formats, self.contents, self.hashes, self.widths, self.heights
        return [
            image_row(IMAGE_NAME, image_format, 0, len(content), xxh3_128, width, height)
            for image_format, content, xxh3_128, width, height in zip(*columns, strict=True)
        ]


def plain_run(
    source_uri: str,
    places: tuple[Sequence[str], Sequence[str], Sequence[int], Sequence[str]],
    contents: Sequence[memoryview],
    facts: Sequence[PlainFacts],
) -> PlainRun:
    """The run of samples whose ``places`` are sample_ids, members, byte offsets and the images' file names."""
    messages, wordings, *others = zip(*facts, strict=True)
    return PlainRun(
        source_uri, *places, contents, list(map(content_hash, contents)), joined_hashes(wordings), messages, *others
    )
