"""The files beside the parts of a source: its versions, and the MDS view that plain ``streaming`` reads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlm_catalogs import json_text
from vlm_catalogs.layout import PartRecord
from vlm_prep.mds_shard import shard_index_entry
from vlm_prep.source_plan import SourcePlan


def publish_source(plan: SourcePlan, records: Sequence[PartRecord], *, staging: Path) -> None:
    """Write ``sources/<fingerprint>.json`` and, for a source with samples, the root ``index.json``."""
    version: dict[str, Any] = {
        "dataset": plan.source.name,
        "format": plan.file_format,
        "parts": [part.name for part in plan.parts],
    }
    if stated := plan.stated_here:
        version["stated_counts"] = stated  # of wdinfo.json; the audit compares them
    path = plan.layout / "sources" / f"{plan.fingerprint}.json"
    plan.store.publish_text(json_text.dumps_indented(version), path, staging=staging)
    view = mds_view(records)
    if view["shards"]:
        plan.store.publish_text(json_text.dumps(view), plan.layout / "index.json", staging=staging)


def mds_view(records: Sequence[PartRecord]) -> dict[str, Any]:
    """An MDS index.json over the shards of all parts, in order; basenames lead into the parts' folders."""
    shards = [
        shard_index_entry(basename=f"parts/{record.name}/{file.name}", num_bytes=file.bytes, num_samples=num_samples)
        for record in records
        for file, num_samples in zip(record.shards, record.shard_samples, strict=True)
    ]
    return {"version": 2, "shards": shards}
