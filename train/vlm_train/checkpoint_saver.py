"""Saves the checkpoints of a run, one at a time: between two steps, or in the background of those that follow.

In the background a thread writes a copy of the tensors in the memory of the CPU, and the ranks agree over a process
group of their own: on the group of the training loop their calls would mix with its calls, and hang.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_catalogs.config import Config
from vlm_catalogs.errors import StorageError
from vlm_train.checkpoint import RunState, checkpoint_path, checkpoint_tensors, write_checkpoint
from vlm_train.ranks import ALONE, Ranks
from vlm_train.uploads import Uploads

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


class CheckpointSaver:
    """Writes ``<run>/checkpoints/step-N``. Every rank has one and calls the same methods in the same order."""

    def __init__(
        self,
        run: Path,
        *,
        module: "nn.Module",
        optimizer: "Optimizer",
        max_keep: int,
        only_trainable: bool = False,
        in_background: bool = False,
        ranks: Ranks = ALONE,
        uploads: Uploads | None = None,
    ) -> None:
        self._uploads = uploads or Uploads([])
        self._run = run
        self._module = module
        self._optimizer = optimizer
        self._max_keep = max_keep
        self._only_trainable = only_trainable
        self._ranks = ranks.apart()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint") if in_background else None
        self._saving: Future[Path] | None = None

    def save(self, state: RunState) -> Path:
        """Where the checkpoint of ``state`` stands, or will: it is whole when ``finish`` returns.

        Waits for the one before. Raises StorageError for that one, or, between two steps, for this.
        """
        self.finish()
        path = checkpoint_path(self._run, state.step)
        exists = path.exists()
        self._ranks.wait()  # all have looked before anyone writes
        if exists:
            return path
        tensors = checkpoint_tensors(self._module, self._optimizer, only_trainable=self._only_trainable)
        if self._thread is None:
            return self._write(state, tensors)
        self._saving = self._thread.submit(partial(self._write, state, copied_to_cpu(tensors)))
        return path

    @property
    def has_failed(self) -> bool:
        """Has the save in the background failed? ``finish`` then raises its error."""
        return self._saving is not None and self._saving.done() and self._saving.exception() is not None

    def finish(self) -> None:
        """Wait for the save in the background. Raises StorageError when it has failed."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def close(self) -> None:
        """End the thread after its save; a failure is left to the error that ends the run.

        That may be the loss of another rank, for which this one's save would wait: RuntimeError of the group.
        """
        with suppress(StorageError, RuntimeError):
            self.finish()
        if self._thread is not None:
            self._thread.shutdown()

    def _write(self, state: RunState, tensors: dict[str, Any]) -> Path:
        path = write_checkpoint(
            self._run, state, tensors, max_keep=self._max_keep, ranks=self._ranks, pinned=self._uploads.pinned
        )
        self._uploads.add(path)
        return path


def saver_of(
    config: Config, run: Path, *, module: "nn.Module", optimizer: "Optimizer", ranks: Ranks, uploads: Uploads
) -> CheckpointSaver:
    """What saves the checkpoints of a run in its output_dir ``run``. All ranks must call it."""
    ckpt = config.train.ckpt
    return CheckpointSaver(
        run,
        module=module,
        optimizer=optimizer,
        max_keep=ckpt.max_keep,
        only_trainable=config.policy.lora is not None,
        in_background=ckpt.save_mode == "async",
        ranks=ranks,
        uploads=uploads,
    )


def copied_to_cpu(tensors: dict[str, Any]) -> dict[str, Any]:
    """A copy that later steps do not change."""
    import torch
    from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

    on_cuda = torch.cuda.is_available()
    stager = DefaultStager(
        StagingOptions(
            use_pinned_memory=on_cuda, use_shared_memory=False, use_async_staging=False, use_non_blocking_copy=on_cuda
        )
    )
    copy = stager.stage(tensors)
    assert isinstance(copy, dict)  # a Future only with async staging
    return copy
