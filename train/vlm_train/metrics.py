"""metrics.jsonl: one JSON object a step, flushed line by line; a killed run leaves at most one torn line."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from vlm_catalogs import json_text
from vlm_catalogs.errors import DataError, StorageError

METRICS_FILE = "metrics.jsonl"
BAD_STEPS_FILE = "bad_steps.jsonl"
VALIDATION_FILE = "validation.jsonl"
"""A line for each validation; that before the first step has no line in metrics.jsonl."""
ANSWERS_FILE = "validation_samples.jsonl"
"""A line for each answer to a held-out sample."""


class MetricsLog:
    """Appends one line a step; every line carries the attempt (1 for the first start, one more for each resume)."""

    def __init__(self, file: IO[str], *, attempt: int) -> None:
        self._file = file
        self.attempt = attempt

    def write(self, values: Mapping[str, Any]) -> None:
        """Append one step and hand it to the operating system, so that a kill loses nothing written before.

        Numbers that are not finite, which JSON does not have, become null.

        Raises StorageError when the disk does not take it.
        """
        try:
            self._file.write(json_text.dumps({**finite_or_null(values), "attempt": self.attempt}) + "\n")
            self._file.flush()
        except OSError as error:
            raise StorageError(
                f"{self._file.name}: cannot be written: {error.strerror}; free some space and go on with --resume"
            ) from error

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def finite_or_null(value: Any) -> Any:
    """``value`` with None for every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: finite_or_null(one) for name, one in value.items()}
    return [finite_or_null(one) for one in value] if isinstance(value, list | tuple) else value


def open_metrics(output_dir: Path, name: str = METRICS_FILE, *, attempt: int | None = None) -> MetricsLog:
    """The log of a new attempt, or of ``attempt``.

    A line torn by a kill is cut off first: it would spoil the file for every reader.
    """
    path = output_dir / name
    if path.exists():
        cut_torn_line(path)
    if attempt is None:
        attempt = (
            1 if not path.exists() else 1 + max((line.get("attempt", 1) for line in read_metrics(path)), default=0)
        )
    return MetricsLog(path.open("a", encoding="utf-8"), attempt=attempt)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a metrics file, of every attempt. Raises DataError for a line that is no line of ours.

    What follows the last newline is left out: a run that was killed, or is writing just now, leaves it.
    """
    lines = path.read_bytes().split(b"\n")[:-1]
    return [_read_line(path, number, text) for number, text in enumerate(lines, start=1)]


def _read_line(path: Path, number: int, text: bytes) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}:{number}: not a line of metrics: {error}; move the file away") from error
    if not isinstance(line, dict) or not isinstance(line.get("attempt", 1), int):
        raise DataError(f"{path}:{number}: not a line of metrics: {text[:60]!r}; move the file away")
    return line


def cut_torn_line(path: Path) -> None:
    """Cut off what follows the last newline."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
