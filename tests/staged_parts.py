"""One part converted by hand, without a build around it."""

from pathlib import Path

from vlm_catalogs.source import Source
from vlm_prep.convert import ConvertTask, stage_part
from vlm_prep.part_store import LocalStore
from vlm_prep.parts import PlannedPart
from vlm_prep.raw_sample import Limits


def stage_alone(source: Source, file_format: str, part: PlannedPart, *, limits: Limits, folder: Path) -> Path:
    """The staged part, below ``folder``, where it was scratch and store too."""
    task = ConvertTask(
        source=source,
        file_format=file_format,
        part=part,
        store=LocalStore(folder),
        layout=folder,
        staging=folder,
        scratch=folder,
        limits=limits,
    )
    return stage_part(task)
