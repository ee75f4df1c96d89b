"""The stage that decodes the media of parts that have no decoded facts yet, where the TOML asks for them."""

import time
from collections.abc import Sequence

from vlm_catalogs.config import Config
from vlm_catalogs.console import Progress, fact
from vlm_prep.added_tables import check_table
from vlm_prep.build_log import BuildLog
from vlm_prep.fact_files import DECODED_NAME, asks_for_decoding
from vlm_prep.mix import PreparedSource
from vlm_prep.workplace import Workplace

SMALL_BYTES = 16 << 20
"""Shards of less than this are decoded in the main process."""


def decode_missing(config: Config, prepared: Sequence[PreparedSource], place: Workplace, log: BuildLog) -> None:
    """Decode the parts that have no facts yet, if the TOML asks for them at all."""
    if not asks_for_decoding(config):
        return
    from vlm_prep.decoded import DecodeTask, decode  # only now: they load FFmpeg

    for source in prepared:
        source.plan.store.bring(source.tables(DECODED_NAME), below=source.plan.layout / "parts")
    parts = [
        (source.plan.store, folder, sum(shard.bytes for shard in record.shards))
        for source in prepared
        for folder, record in zip(source.plan.folders(), source.records, strict=True)
    ]
    missing = [one for one in parts if not (one[1] / DECODED_NAME).is_file()]
    sizes = {folder: size for _, folder, size in missing}
    tasks = [DecodeTask(folder=folder, store=store, staging=place.staging) for store, folder, _ in missing]
    num_bytes, started = sum(sizes.values()), time.monotonic()
    workers = place.num_processes(is_small=num_bytes < SMALL_BYTES)
    with Progress("decode", total=num_bytes >> 20, unit="MiB") as progress:
        place.run_tasks(
            decode, tasks, num_workers=workers, on_done=lambda task: progress.advance(sizes[task.folder] >> 20)
        )
    for store, folder, _ in parts:
        check_table(folder / DECODED_NAME, store)
    cached = "all cached" if not tasks else f"{len(parts) - len(tasks)} cached"
    fact(f"decode: {len(parts)} parts, {cached}, {num_bytes / 1e6:,.1f} MB, {time.monotonic() - started:.1f} s")
    log.note("decode", parts=len(parts), decoded=len(tasks), bytes=num_bytes, workers=workers)
