"""How does a run end: whole, with its export, or stopped, with what goes on from there?"""

from torch import Tensor

from vlm_catalogs.console import fact, result
from vlm_train.attempt import Run
from vlm_train.export import adapter_path, export_path, export_weights
from vlm_train.lora import export_adapter
from vlm_train.run_checkpoints import save_last
from vlm_train.shard_parameters import full_state_dict
from vlm_train.step_stream import Place
from vlm_train.stop_request import StopRequest

SIGNAL_EXIT = 128
"""A run that a signal ended exits with this plus the signal's number, as shells do."""


def end_stopped(run: Run, place: Place, stop: StopRequest, *, validation_loss: float | None) -> int:
    """Save what a signal interrupted before the step at ``place``; the exit code."""
    assert stop.signal is not None
    config = run.config
    saved = "nothing was saved: train.ckpt.enable_checkpoint or train.save_ckpt_at_exit is false"
    if config.train.ckpt.enable_checkpoint and config.train.save_ckpt_at_exit:
        path = save_last(run, place, validation_loss=validation_loss)
        saved = f"saved {path}; go on with: vlm-train run {config.path} --resume"
    fact(f"stopped by {stop.signal.name} after step {place.step} of {run.plan.total_steps}; {saved}")
    return SIGNAL_EXIT + stop.signal


def end_whole(run: Run, place: Place, *, validation_loss: float | None) -> int:
    """Save and export a run whose last step was the one before ``place``; the exit code."""
    done, total = place.step, run.plan.total_steps if run.plan.is_exact else place.step
    ckpt = run.config.train.ckpt
    fact(f"trained {done} of {total} steps; metrics: {run.output_dir / 'metrics.jsonl'}")
    if ckpt.enable_checkpoint and run.config.train.save_ckpt_at_exit:
        saved = save_last(run, place, validation_loss=validation_loss)
        fact(f"checkpoint: {saved}")
        run.uploads.add(saved, is_final=True)
    if ckpt.export_safetensors:
        weights = full_state_dict(run.trainer.module, ranks=run.ranks)
        if run.ranks.is_first:
            _export(run, done, weights)
        run.ranks.wait()
    return 0


def _export(run: Run, done: int, weights: dict[str, Tensor]) -> None:
    """Write what is not there yet: the model, and the adapters where there are any."""
    module, config = run.trainer.module, run.config
    folder, adapters = export_path(run.output_dir, done), adapter_path(run.output_dir, done)
    if config.policy.lora is not None and not adapters.exists():
        base = config.policy.weights_name_or_path
        fact(f"adapters: {export_adapter(module, weights, base=base, folder=adapters)}")
    result(f"model: {folder if folder.exists() else export_weights(module, weights, config, folder)}")
    for path in (folder, adapters):
        if path.exists():
            run.uploads.add(path, is_final=True)
