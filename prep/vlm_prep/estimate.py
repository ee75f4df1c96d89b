"""How much will a source write, and how long may that take? From its first samples, before anything is converted.

Tars and MDS shards hold their media as shards will, so their size is the estimate. Of other forms (media beside JSON
files, tables that are compressed) the first samples of a few parts are read and built, as conversion would.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from vlm_catalogs.object_store import is_s3
from vlm_prep.built_sample import BuiltSample, build_sample
from vlm_prep.convert import ConvertTask, raw_samples
from vlm_prep.parts import PlannedPart
from vlm_prep.raw_sample import Limits, RawSample, RejectedSample
from vlm_prep.source_plan import SourcePlan

PROBED_PARTS = 3
PROBED_SAMPLES = 32
"""Of each of these parts."""
INDEX_BYTES = 200
"""About what the three index tables and the shard's own table hold of a sample, beside half of its text."""
STORED_AS_THEY_ARE = ("i4", "webdataset", "mds")
"""Forms whose inputs hold the media: shards come out as large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What converting the missing parts of one source takes, about."""

    name: str
    bytes: int
    """To be written."""
    seconds: float | None
    """In one process, reading and building only; None where nothing was read."""
    num_probed: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """Reason -> samples, of those that were probed."""


@dataclass(slots=True)
class _Probe:
    """The first samples of a few parts."""

    input_bytes: float = 0.0
    """That these samples stand for."""
    output_bytes: int = 0
    num_samples: int = 0
    seconds: float = 0.0
    rejected: Counter[str] = field(default_factory=Counter)


def estimate(plan: SourcePlan, *, limits: Limits, with_time: bool = False) -> Estimate:
    """The estimate of one source. Raises DataError or StorageError for a source that cannot be read."""
    num_bytes = sum(part.num_bytes for part in plan.missing)
    is_known = plan.file_format in STORED_AS_THEY_ARE
    is_far = any(is_s3(one.path) for part in plan.missing for one in part.inputs)
    if not num_bytes or is_far or (is_known and not with_time):
        return Estimate(name=plan.source.name, bytes=num_bytes, seconds=None if num_bytes else 0.0)
    probe = _Probe()
    for part in _spread(plan.missing):
        _look(plan, part, limits, probe)
    scale = num_bytes / probe.input_bytes if probe.input_bytes else 1.0
    return Estimate(
        name=plan.source.name,
        bytes=num_bytes if is_known else int(scale * probe.output_bytes),
        seconds=scale * probe.seconds,
        num_probed=probe.num_samples,
        rejected=probe.rejected,
    )


def _spread(parts: Sequence[PlannedPart]) -> list[PlannedPart]:
    """A few of the parts, evenly over the source."""
    number = min(PROBED_PARTS, len(parts))
    return [parts[place * len(parts) // number] for place in range(number)]


def _look(plan: SourcePlan, part: PlannedPart, limits: Limits, probe: _Probe) -> None:
    nowhere = Path()  # nothing is fetched and nothing is written
    task = ConvertTask(
        source=plan.source,
        file_format=plan.file_format,
        part=part,
        store=plan.store,
        layout=plan.layout,
        staging=nowhere,
        scratch=nowhere,
        limits=limits,
    )
    started, before = time.perf_counter(), probe.output_bytes
    taken = list(islice(raw_samples(task), PROBED_SAMPLES + 1))
    for raw in taken[:PROBED_SAMPLES]:
        sample = build_sample(raw, limits) if isinstance(raw, RawSample) else raw
        probe.num_samples += 1
        if isinstance(sample, BuiltSample):
            probe.output_bytes += _stored_bytes(sample)
        else:
            probe.rejected[sample.rejected.reason] += 1
            probe.output_bytes += INDEX_BYTES
    probe.seconds += time.perf_counter() - started
    probe.input_bytes += part.num_bytes * _share(plan, part, taken, probe.output_bytes - before)


def _stored_bytes(sample: BuiltSample) -> int:
    text = len(sample.texts.messages_json) + len(sample.texts.alternatives_json)
    return sum(len(medium.content) for medium in sample.media) + text + text // 2 + INDEX_BYTES


def _share(
    plan: SourcePlan, part: PlannedPart, taken: Sequence[RawSample | RejectedSample], output_bytes: int
) -> float:
    """Which share of the part the probed samples are."""
    if len(taken) <= PROBED_SAMPLES:
        return 1.0
    if plan.file_format in STORED_AS_THEY_ARE:
        return min(1.0, max(output_bytes / part.num_bytes, 1e-9))
    if rows := sum(one.num_rows for one in part.inputs):
        return PROBED_SAMPLES / rows
    offset = taken[-1].origin.byte_offset
    assert offset is not None
    return (offset - part.inputs[0].begin) / part.num_bytes
