"""Copies of checkpoints and exports elsewhere, made by a thread beside the steps: no step waits for one.

A copy that fails is named at once, tried again when the run has ended, and is then part of how the run ends. The files
here stay whatever happens there; a checkpoint that waits to be copied is not removed for ``max_keep``.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from vlm_catalogs.config import Config
from vlm_catalogs.console import DONE, FINDINGS, fact, note
from vlm_catalogs.errors import UserError
from vlm_train.checkpoint import CHECKPOINTS, COMPLETE_FILE, complete_checkpoints
from vlm_train.export import ADAPTERS, EXPORTS

MARKERS = {CHECKPOINTS: COMPLETE_FILE, EXPORTS: "config.json", ADAPTERS: "adapter_config.json"}
"""Folder of a run -> the file of each of its copies that is written last: where it is, the copy is whole."""


class Target(Protocol):
    """A place for copies."""

    def check(self) -> None:
        """Raise UserError where the place does not answer, so that it is known at the start of a run."""
        ...

    def wants(self, folder: Path, *, is_final: bool) -> bool:
        """Is ``folder``, such as ``<run>/checkpoints/step-20``, to be copied there?"""
        ...

    def send(self, folder: Path) -> str:
        """Copy ``folder`` where it is not yet; where it now stands. Raises UserError."""
        ...


@dataclass(frozen=True, slots=True)
class Copy:
    """One folder for one place."""

    target: Target
    folder: Path

    @property
    def name(self) -> str:
        """Such as ``checkpoints/step-20``."""
        return f"{self.folder.parent.name}/{self.folder.name}"


class Uploads:
    """The copies of one run; a context manager, of the first rank."""

    def __init__(self, targets: Sequence[Target]) -> None:
        self._targets = targets
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="upload") if targets else None
        self._taken: list[Copy] = []
        self._working: list[Future[None]] = []
        self._lock = threading.Lock()
        self._waiting: list[Copy] = []
        self._failed: list[tuple[Copy, str]] = []
        if self._thread is not None:
            self._working.append(self._thread.submit(self._check))

    def add(self, folder: Path, *, is_final: bool = False) -> None:
        """Copy ``folder`` to every place that wants it."""
        wanting = [target for target in self._targets if target.wants(folder, is_final=is_final)]
        for copy in (Copy(target, folder) for target in wanting):
            if copy not in self._taken:
                self._taken.append(copy)
                self._submit(copy)

    def add_earlier(self, run: Path) -> None:
        """Copy the whole checkpoints of earlier attempts, where a place wants every one and does not have it."""
        for checkpoint in complete_checkpoints(run):
            self.add(checkpoint)

    def pinned(self) -> frozenset[Path]:
        """The folders that wait to be copied, or whose copy has failed so far."""
        with self._lock:
            return frozenset(copy.folder for copy in [*self._waiting, *(copy for copy, _ in self._failed)])

    def finish(self) -> int:
        """Wait for all copies and try those that failed once more; the exit code that they leave to a run."""
        if self._waiting:
            fact(f"uploads: waiting for {', '.join(copy.name for copy in self._waiting)}")
        self._wait()
        again, self._failed = self._failed, []
        for copy, _ in again:
            self._submit(copy)
        self._wait()
        for copy, why in self._failed:
            note(f"upload: {copy.name} was NOT copied: {why}")
        if self._failed:
            note(f"upload: {len(self._failed)} copies are missing; the files are here: run again with --resume to copy")
        return FINDINGS if self._failed else DONE

    def _submit(self, copy: Copy) -> None:
        assert self._thread is not None
        with self._lock:
            self._waiting.append(copy)
        self._working.append(self._thread.submit(self._try, copy))

    def _wait(self) -> None:
        working, self._working = self._working, []
        for one in working:
            one.result()

    def _check(self) -> None:
        for target in self._targets:
            try:
                target.check()
            except UserError as error:
                note(f"upload: {error}; training goes on, and copies are tried all the same")

    def _try(self, copy: Copy) -> None:
        why = None
        try:
            fact(f"upload: {copy.name} is at {copy.target.send(copy.folder)}")
        except UserError as error:
            why = str(error)
        except OSError as error:  # of our own files
            why = f"{error.filename}: {error.strerror}"
        with self._lock:
            self._waiting.remove(copy)
            if why is not None:
                self._failed.append((copy, why))
        if why is not None:
            note(f"upload: {copy.name}: {why}; it is tried again when the run ends")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """After an error only the copy in work is ended: whatever waits is copied by the next attempt."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)


def open_uploads(config: Config, *, is_first: bool) -> Uploads:
    """What copies as ``[train.ckpt]`` says; nothing on ranks but the first."""
    from vlm_train.upload_hub import HubRepository
    from vlm_train.upload_s3 import S3Copies

    ckpt = config.train.ckpt
    targets: list[Target] = []
    if is_first and ckpt.upload_s3:
        targets.append(S3Copies.of(config))
    if is_first and ckpt.upload_hf:
        targets.append(HubRepository(ckpt.hf_repo_name))
    return Uploads(targets)
