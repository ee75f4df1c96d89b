"""What verification can find: one record for each fault, under one of these names."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

MISSING = "missing"
EXTRA = "extra"
DAMAGED = "damaged"
TRUNCATED = "truncated"
SWAPPED = "swapped"
WRONG_SCHEMA = "wrong_schema"
WRONG_COUNT = "wrong_count"
STALE_INDEX = "stale_index"
OTHER_PIN = "other_pin"
UNREADABLE = "unreadable"
SOURCE_CHANGED = "source_changed"

MEANINGS: dict[str, str] = {
    MISSING: "a file that should be there is not",
    EXTRA: "a file that nothing knows of",
    DAMAGED: "the content is not what its record says",
    TRUNCATED: "the file is shorter than its record says",
    SWAPPED: "the content is that of another file or part",
    WRONG_SCHEMA: "columns or types are not those of this format",
    WRONG_COUNT: "numbers of samples or rows disagree",
    STALE_INDEX: "an index or table does not say what the shards hold",
    OTHER_PIN: "the mix was built with another content than is there now",
    UNREADABLE: "the file cannot be read as what it should be",
    SOURCE_CHANGED: "the source is not what the part was made from any more",
}
"""Problem -> meaning."""

MAX_FINDINGS_PER_FILE = 20
"""So many faults of one file are told; the rest of them have the same cause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One fault."""

    problem: str
    """A key of MEANINGS."""
    path: str
    detail: str
    found_xxh3_128: str | None = None
    """The hash of a file that is not as recorded: it may be that of another file."""

    def line(self) -> str:
        """For people."""
        return f"{self.problem}: {self.path}: {self.detail}"

    def as_row(self) -> dict[str, str]:
        """For machines."""
        return {"problem": self.problem, "path": self.path, "detail": self.detail}


def first_of(findings: Iterator[Finding]) -> list[Finding]:
    """The first findings of one file; the last of them says so when there are more."""
    found = list(islice(findings, MAX_FINDINGS_PER_FILE))
    if next(findings, None) is None:
        return found
    last = found[-1]
    return [*found[:-1], Finding(problem=last.problem, path=last.path, detail=f"{last.detail}; and more like these")]
