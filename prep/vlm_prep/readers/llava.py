"""LLaVA JSON: one array of records."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from vlm_catalogs.source import FileSource
from vlm_prep.content_ids import map_file
from vlm_prep.file_inputs import plan_json, range_elements
from vlm_prep.parts import PartInput, PlannedPart
from vlm_prep.raw_sample import Limits, RawSample, RejectedSample
from vlm_prep.readers.file_rows import media_folder, read_row, row_origin


def plan_parts(source: FileSource, files: Sequence[Path]) -> list[PlannedPart]:
    """The parts of JSON arrays. Raises DataError or StorageError."""
    return plan_json(source, files, "llava")


def read_part(source: FileSource, inputs: Sequence[PartInput], limits: Limits) -> Iterator[RawSample | RejectedSample]:
    """The samples of ranges of JSON arrays."""
    for part_input in inputs:
        content = map_file(Path(part_input.path))[part_input.begin : part_input.begin + part_input.bytes]
        folder = media_folder(source, part_input)
        for row, (begin, end) in enumerate(range_elements(content)):
            origin = row_origin(part_input, row=part_input.first_row + row, offset=begin)
            yield read_row(content[begin:end], origin, folder, limits, columns=source.columns)
