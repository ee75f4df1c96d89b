"""When does a run save, and what?"""

from pathlib import Path

from vlm_catalogs.config import Config
from vlm_train.attempt import Run
from vlm_train.step_stream import Place


def save_is_due(config: Config, place: Place) -> bool:
    """True when the step before ``place`` ends with a checkpoint."""
    ckpt = config.train.ckpt
    if not ckpt.enable_checkpoint:
        return False
    if ckpt.save_freq_in_epoch:
        return place.epoch_step == 0 and place.epoch % ckpt.save_freq_in_epoch == 0
    return place.step % ckpt.save_freq == 0


def save_run(run: Run, place: Place, *, validation_loss: float | None = None) -> Path:
    """Where the checkpoint of the state before the step at ``place`` stands, or will. All ranks must call it."""
    return run.saver.save(run.state(place, validation_loss=validation_loss))


def save_last(run: Run, place: Place, *, validation_loss: float | None = None) -> Path:
    """The checkpoint of the state before the step at ``place``, whole. All ranks must call it."""
    path = save_run(run, place, validation_loss=validation_loss)
    run.saver.finish()
    return path
