"""The picture sheet of explained steps: every sample with its media, its conversation, its own loss and its lineage.

One HTML file that needs nothing else and runs no text of the data (see ``vlm_catalogs.page``).
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from vlm_catalogs.errors import ConfigError, StorageError, UserError
from vlm_catalogs.page import page_html
from vlm_catalogs.page.pictures import picture_url
from vlm_catalogs.sample import Sample
from vlm_train.explain import ExplainedSample, ExplainedStep, step_table
from vlm_train.planned_rows import PlannedRow, planned_rows
from vlm_train.sample_store import SampleStore

MOST_SHOWN = 60
"""Samples of a step whose media and words are on the sheet, the highest losses first; the others are lines."""
MOST_MEDIA = 6
"""Of a sample."""
MOST_CHARACTERS = 4_000
"""Of one text."""


def write_sheet(path: Path, run: Path, steps: Sequence[ExplainedStep], store: SampleStore) -> None:
    """Write the sheet of ``steps`` of ``run``, whose samples ``store`` reads.

    Raises ConfigError for a file that is there, StorageError for a place that takes none.
    """
    if path.exists():
        raise ConfigError(f"--html {path}: exists already; name another file or move it away")
    with closing(store):
        data = {"run": str(run), "steps": [_step(run, one, store) for one in steps]}
    own = files("vlm_train")
    title = f"{run.name}: " + (f"step {steps[0].step}" if len(steps) == 1 else f"{len(steps)} steps")
    names = ("sample_card.js", "explain_sheet.js", "explain_sheet.css")
    card, script, style = (own.joinpath(name).read_text(encoding="utf-8") for name in names)
    try:
        path.write_text(page_html(title, data, scripts=[card, script], styles=[style]), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"--html {path}: cannot be written: {error}") from error


def _step(run: Path, step: ExplainedStep, store: SampleStore) -> dict[str, Any]:
    lines = rows_of_step(run, step)
    samples = [
        {
            **spelled(asdict(one)),
            **(contents(lines[one.row, one.position], one, store) if place < MOST_SHOWN else {}),
        }
        for place, one in enumerate(step.samples)
    ]
    return {**spelled(asdict(step)), "samples": samples}


def rows_of_step(run: Path, step: ExplainedStep) -> dict[tuple[int, int], PlannedRow]:
    """(row, position) -> its line of the epoch table."""
    table = step_table(run, step.epoch, step.epoch_step)
    return {(line.row, line.position): line for row in planned_rows(table) for line in row}


def spelled(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields with what JSON has no number for as text."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in fields.items()
    }


def contents(line: PlannedRow, explained: ExplainedSample, store: SampleStore) -> dict[str, Any]:
    """What the sample shows and says, or why it cannot be read: a sheet is no place to fail for a damaged shard."""
    try:
        sample = store.read(line)
    except UserError as error:
        return {"problem": str(error)}
    return {"media": _media(sample), "turns": list(_turns(sample, explained.alternative))}


def _media(sample: Sample) -> list[dict[str, Any]]:
    return [
        {
            "name": facts.name,
            "kind": facts.kind,
            "width": facts.width,
            "height": facts.height,
            "duration": facts.duration,
            "bytes": facts.size,
            "url": picture_url(facts, sample.medium(facts.name)) if place < MOST_MEDIA else None,
        }
        for place, facts in enumerate(sample.media_table)
    ]


def _turns(sample: Sample, alternative: int) -> Iterator[list[str | list[str]]]:
    """[role, part, ...] of each message: a part is a text, or [name of a medium]."""
    for message in sample.conversation(alternative):
        thought = message.get("reasoning_content")
        parts: list[str | list[str]] = [_cut(f"(thinks) {thought}")] if isinstance(thought, str) else []
        parts += [
            _cut(item["text"]) if item["type"] == "text" else [str(item[item["type"]])] for item in message["content"]
        ]
        yield [message["role"], *parts]


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}… ({len(text):,} characters)"
