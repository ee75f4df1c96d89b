"""When does a run save, and what?"""

from pathlib import Path

from vlm_train.attempt import Run
from vlm_train.checkpoint import checkpoint_path, save_checkpoint
from vlm_train.step_stream import Place


def save_is_due(run: Run, place: Place) -> bool:
    """True when the step before ``place`` ends with a checkpoint."""
    ckpt = run.config.train.ckpt
    return ckpt.enable_checkpoint and place.step % ckpt.save_freq == 0


def save_run(run: Run, place: Place) -> Path:
    """The checkpoint of the state before the step at ``place``, written unless it is there. All ranks must call it."""
    path = checkpoint_path(run.output_dir, place.step)
    exists = path.exists()
    run.ranks.wait()  # all have looked before anyone writes
    if exists:
        return path
    return save_checkpoint(
        run.output_dir,
        run.state(place),
        module=run.trainer.module,
        optimizer=run.trainer.optimizer,
        max_keep=run.config.train.ckpt.max_keep,
        only_trainable=run.config.policy.lora is not None,
        ranks=run.ranks,
    )
