"""The stage that decodes the media of parts that have no decoded facts yet, where the TOML asks for them."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlm_catalogs.config import Config
from vlm_catalogs.console import fact
from vlm_catalogs.layout import PartRecord
from vlm_prep.added_tables import check_table
from vlm_prep.build_log import BuildLog
from vlm_prep.fact_files import DECODED_NAME, asks_for_decoding
from vlm_prep.mix import PreparedSource
from vlm_prep.stage_counts import Key, Made, Piece
from vlm_prep.stage_progress import StageProgress
from vlm_prep.workplace import Workplace

if TYPE_CHECKING:
    from vlm_prep.decoded import DecodeTask

SMALL_BYTES = 16 << 20
"""Shards of less than this are decoded in the main process."""


def decode_missing(config: Config, prepared: Sequence[PreparedSource], place: Workplace, log: BuildLog) -> None:
    """Decode the parts that have no facts yet, if the TOML asks for them at all."""
    if not asks_for_decoding(config):
        return
    from vlm_prep.decoded import DecodeTask, decode  # only now: they load FFmpeg

    for source in prepared:
        source.plan.store.bring(source.tables(DECODED_NAME), below=source.plan.layout / "parts")
    tasks = [
        DecodeTask(folder=folder, dataset=source.name, store=source.plan.store, staging=place.staging)
        for source in prepared
        for folder in source.plan.folders()
        if not (folder / DECODED_NAME).is_file()
    ]
    records = {(source.name, record.name): record for source in prepared for record in source.records}
    pieces = [
        Piece(source=task.dataset, part=task.folder.name, work=_made(records[_key(task)]).bytes) for task in tasks
    ]
    num_bytes, started = sum(piece.work for piece in pieces), time.monotonic()
    workers = place.num_processes(is_small=num_bytes < SMALL_BYTES)
    with StageProgress("decode", pieces, num_workers=workers) as progress:
        place.run_tasks(
            decode,
            tasks,
            num_workers=workers,
            on_done=lambda task: progress.done(_key(task), _made(records[_key(task)])),
        )
    for source in prepared:
        for folder in source.plan.folders():
            check_table(folder / DECODED_NAME, source.plan.store)
    cached = "all cached" if not tasks else f"{len(records) - len(tasks)} cached"
    fact(f"decode: {len(records)} parts, {cached}, {num_bytes / 1e6:,.1f} MB, {time.monotonic() - started:.1f} s")
    log.note("decode", parts=len(records), decoded=len(tasks), bytes=num_bytes, workers=workers)


def _key(task: "DecodeTask") -> Key:
    return task.dataset, task.folder.name


def _made(record: PartRecord) -> Made:
    return Made(samples=record.num_kept, bytes=sum(shard.bytes for shard in record.shards))
