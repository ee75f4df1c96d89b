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


def unused_settings(config: Config) -> tuple[str, ...]:
    """A note where the TOML says how to save checkpoints, but not that there are any."""
    keys = [f"train.ckpt.{name}" for name in ("save_freq", "save_freq_in_epoch", "save_mode", "max_keep")]
    named = [key for key in keys if key in config.lines]
    if config.train.ckpt.enable_checkpoint or not named:
        return ()
    return (
        f"{', '.join(named)}: no effect without train.ckpt.enable_checkpoint = true: a run that is interrupted starts "
        "again at step 0",
    )
