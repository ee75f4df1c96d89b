"""What a build did when."""

import time
from dataclasses import dataclass, field

from vlm_catalogs import json_text


@dataclass(slots=True)
class BuildLog:
    """What happened when; the only file of a mix that holds clocks."""

    started: float = field(default_factory=time.monotonic)
    lines: list[str] = field(default_factory=list)

    def note(self, stage: str, **facts: object) -> None:
        """Add one line."""
        clock = {"time": round(time.time(), 3), "seconds": round(time.monotonic() - self.started, 3)}
        self.lines.append(json_text.dumps({"stage": stage, **clock, **facts}))
