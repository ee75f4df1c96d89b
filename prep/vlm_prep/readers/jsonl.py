"""JSONL: one record a line. Blank lines are no samples, but they count in the row numbers."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from vlm_catalogs.source import FileSource
from vlm_prep.content_ids import map_file
from vlm_prep.file_inputs import line_end, plan_json
from vlm_prep.parts import PartInput, PlannedPart
from vlm_prep.raw_sample import Limits, RawSample, RejectedSample
from vlm_prep.readers.file_rows import media_folder, read_row, row_origin


def plan_parts(source: FileSource, files: Sequence[Path]) -> list[PlannedPart]:
    """The parts of JSONL files. Raises DataError or StorageError."""
    return plan_json(source, files, "jsonl")


def read_part(source: FileSource, inputs: Sequence[PartInput], limits: Limits) -> Iterator[RawSample | RejectedSample]:
    """The samples of ranges of JSONL files."""
    for part_input in inputs:
        content = map_file(Path(part_input.path))
        folder = media_folder(source, part_input)
        for row, (begin, end) in enumerate(_lines(content, part_input)):
            line = content[begin:end]
            if end - begin > limits.max_sample_bytes or line.tobytes().strip():
                origin = row_origin(part_input, row=part_input.first_row + row, offset=begin - part_input.begin)
                yield read_row(line, origin, folder, limits, columns=source.columns)


def _lines(content: memoryview, part_input: PartInput) -> Iterator[tuple[int, int]]:
    begin = part_input.begin
    while begin < part_input.begin + part_input.bytes:
        end = line_end(content, begin)
        yield begin, end
        begin = end
