"""What a build has converted so far, for its line of progress: by source, with samples a second and rejections."""

import time
from collections import Counter
from collections.abc import Sequence

import pyarrow.parquet as pq

from vlm_catalogs.layout import part_folder, read_part
from vlm_prep.convert import ConvertTask


class ConvertedSoFar:
    """Counts the parts that are done, from what stands on the disk of them."""

    def __init__(self, tasks: Sequence[ConvertTask]) -> None:
        self._todo = Counter(task.source.name for task in tasks)
        self._done: Counter[str] = Counter()
        self._last = ""
        self._started = time.monotonic()
        self.num_samples = 0
        self.rejected: Counter[str] = Counter()

    def add(self, task: ConvertTask) -> None:
        """Count a part that has just been converted."""
        folder = part_folder(task.layout, task.part.name)
        record = read_part(folder)
        self._last = task.source.name
        self._done[self._last] += 1
        self.num_samples += record.num_kept + record.num_rejected
        if record.num_rejected:
            reasons = pq.read_table(folder / "samples.parquet", columns=["reason"])["reason"].drop_null()
            self.rejected.update(reasons.to_pylist())

    def __str__(self) -> str:
        rate = self.num_samples / max(time.monotonic() - self._started, 1e-9)
        finished = sum(self._done[name] == number for name, number in self._todo.items())
        source = f"{self._last} {self._done[self._last]}/{self._todo[self._last]} parts, " if self._last else ""
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in self.rejected.most_common(3))
        rejected = f", rejected {reasons}" if reasons else ""
        return f"{rate:,.0f} samples/s, {source}{finished}/{len(self._todo)} sources done{rejected}"
