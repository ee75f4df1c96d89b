import resource
import time
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from vlm_catalogs.config import load_config
from vlm_catalogs.errors import ConfigError, DataError, StorageError
from vlm_train.checkpoint import (
    CHECKPOINTS,
    RunState,
    checkpoint_path,
    complete_checkpoints,
    load_tensors,
    read_state,
    refuse_unmarked,
    write_checkpoint,
)
from vlm_train.checkpoint_saver import CheckpointSaver
from vlm_train.optimizer import OptimizerSettings, build_optimizer, clip_gradients, set_lr
from vlm_train.run_checkpoints import unused_settings

SETTINGS = OptimizerSettings(
    lr={"default": 0.1}, impl="fused", weight_decay=0.01, betas=(0.9, 0.999), epsilon=1e-6, grad_norm_clip=1.0
)


def model() -> tuple[nn.Module, Optimizer]:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    module[0].requires_grad_(False)
    return module, build_optimizer(module.named_parameters(), SETTINGS)


def train(module: nn.Module, optimizer: Optimizer, steps: range) -> list[float]:
    losses = []
    for step in steps:
        torch.manual_seed(step)
        loss = module(torch.randn(4, 3)).square().sum()
        optimizer.zero_grad()
        loss.backward()
        clip_gradients(module.parameters(), max_norm=SETTINGS.grad_norm_clip)
        set_lr(optimizer, 1 / (1 + step))
        optimizer.step()
        losses.append(loss.item())
    return losses


def state(step: int) -> RunState:
    return RunState(step=step, epoch=0, epoch_step=step, fingerprint={"mix": "abc", "seed": 0})


def save_checkpoint(
    run: Path, at: RunState, *, module: nn.Module, optimizer: Optimizer, max_keep: int, **settings: Any
) -> Path:
    """Save once, and see it whole."""
    saver = CheckpointSaver(run, module=module, optimizer=optimizer, max_keep=max_keep, **settings)
    path = saver.save(at)
    saver.finish()
    saver.close()
    return path


def test_a_reloaded_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    module, optimizer = model()
    train(module, optimizer, range(3))
    path = save_checkpoint(tmp_path, state(3), module=module, optimizer=optimizer, max_keep=5)
    expected = train(module, optimizer, range(3, 8))
    module, optimizer = model()
    assert read_state(path) == state(3)
    load_tensors(path, module=module, optimizer=optimizer)
    assert train(module, optimizer, range(3, 8)) == expected


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp", "state.json"])
def test_one_flipped_byte_is_found_and_named(tmp_path: Path, name: str) -> None:
    module, optimizer = model()
    path = save_checkpoint(tmp_path, state(1), module=module, optimizer=optimizer, max_keep=5)
    content = bytearray((path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: damaged"):
        read_state(path)


def test_a_state_that_was_edited_is_found(tmp_path: Path) -> None:
    module, optimizer = model()
    path = save_checkpoint(tmp_path, state(1), module=module, optimizer=optimizer, max_keep=5) / "state.json"
    path.write_text(path.read_text().replace('"step": 1', '"step": 2'))
    with pytest.raises(DataError, match="its hash differs from COMPLETE"):
        read_state(path.parent)


def test_a_missing_or_short_file_is_found_and_named(tmp_path: Path) -> None:
    module, optimizer = model()
    path = save_checkpoint(tmp_path, state(1), module=module, optimizer=optimizer, max_keep=5)
    tensors = path / "__0_0.distcp"
    tensors.write_bytes(tensors.read_bytes()[:-1])
    with pytest.raises(DataError, match="were written"):
        read_state(path)
    tensors.unlink()
    with pytest.raises(DataError, match=r"__0_0\.distcp: missing"):
        read_state(path)


def test_a_save_that_was_killed_is_no_checkpoint_and_does_not_stop_the_next(tmp_path: Path) -> None:
    module, optimizer = model()
    half = tmp_path / CHECKPOINTS / "step-2.tmp"
    half.mkdir(parents=True)
    (half / "__0_0.distcp").write_bytes(b"half")
    (tmp_path / CHECKPOINTS / "step-1").mkdir()
    assert complete_checkpoints(tmp_path) == []
    path = save_checkpoint(tmp_path, state(2), module=module, optimizer=optimizer, max_keep=5)
    assert complete_checkpoints(tmp_path) == [path]
    assert read_state(path).step == 2


def test_max_keep_removes_the_oldest_by_number_and_minus_one_keeps_all(tmp_path: Path) -> None:
    module, optimizer = model()
    for step in (8, 9, 10):
        save_checkpoint(tmp_path, state(step), module=module, optimizer=optimizer, max_keep=-1)
    assert complete_checkpoints(tmp_path) == [checkpoint_path(tmp_path, step) for step in (8, 9, 10)]
    save_checkpoint(tmp_path, state(11), module=module, optimizer=optimizer, max_keep=2)
    assert complete_checkpoints(tmp_path) == [checkpoint_path(tmp_path, step) for step in (10, 11)]


def test_a_checkpoint_without_its_mark_is_damaged_not_passed_over(tmp_path: Path) -> None:
    module, optimizer = model()
    for step in (1, 2):
        path = save_checkpoint(tmp_path, state(step), module=module, optimizer=optimizer, max_keep=5)
    refuse_unmarked(tmp_path)
    (path / "COMPLETE").unlink()
    with pytest.raises(DataError, match=r"step-2: damaged: its COMPLETE is missing"):
        refuse_unmarked(tmp_path)


def test_a_disk_that_is_full_is_named_and_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    module, optimizer = model()
    before = save_checkpoint(tmp_path, state(1), module=module, optimizer=optimizer, max_keep=1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"step-2: cannot be saved: .*File too large"):
            save_checkpoint(tmp_path, state(2), module=module, optimizer=optimizer, max_keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / CHECKPOINTS).iterdir()) == [before]
    assert read_state(before).step == 1


@pytest.mark.parametrize("saved_frozen", [True, False])
def test_other_trainable_parameters_than_were_saved_are_refused(tmp_path: Path, saved_frozen: bool) -> None:
    module, _ = model()
    paths = []
    for number, frozen in enumerate((saved_frozen, not saved_frozen)):
        module[0].requires_grad_(not frozen)  # type: ignore[index]
        optimizer = build_optimizer(module.named_parameters(), SETTINGS)
        paths.append(save_checkpoint(tmp_path, state(number), module=module, optimizer=optimizer, max_keep=5))
    load_tensors(paths[1], module=module, optimizer=optimizer)
    with pytest.raises(ConfigError, match=r"other trainable parameters; .*; 2 differ: 0\.bias, 0\.weight"):
        load_tensors(paths[0], module=module, optimizer=optimizer)


@pytest.mark.parametrize("other", [nn.Sequential(nn.Linear(3, 3)), nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))])
def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path, other: nn.Module) -> None:
    module, optimizer = model()
    path = save_checkpoint(tmp_path, state(1), module=module, optimizer=optimizer, max_keep=5)
    with pytest.raises(ConfigError, match="weights of another model"):
        load_tensors(path, module=other)


def test_a_checkpoint_of_what_trains_leaves_the_frozen_weights_to_the_base(tmp_path: Path) -> None:
    module, optimizer = model()
    train(module, optimizer, range(3))
    path = save_checkpoint(tmp_path, state(3), module=module, optimizer=optimizer, max_keep=5, only_trainable=True)
    expected = train(module, optimizer, range(3, 8))
    module, optimizer = model()
    load_tensors(path, module=module, optimizer=optimizer, only_trainable=True)
    assert train(module, optimizer, range(3, 8)) == expected
    with pytest.raises(ConfigError, match=r"weights of another model; .*; 2 differ: 0\.bias, 0\.weight"):
        load_tensors(path, module=module, optimizer=optimizer)


def test_the_settings_of_today_win_over_those_of_the_checkpoint(tmp_path: Path) -> None:
    module, optimizer = model()
    train(module, optimizer, range(1))
    path = save_checkpoint(tmp_path, state(1), module=module, optimizer=optimizer, max_keep=5)
    later = replace(SETTINGS, lr={"weight": 0.3, "default": 0.2}, weight_decay=0.5, betas=(0.8, 0.9))
    module, _ = model()
    optimizer = build_optimizer(module.named_parameters(), later)
    load_tensors(path, module=module, optimizer=optimizer)
    groups = [(group["base_lr"], group["weight_decay"], group["betas"]) for group in optimizer.param_groups]
    assert groups == [(0.3, 0.5, (0.8, 0.9)), (0.2, 0.5, (0.8, 0.9))]
    assert all(optimizer.state[one]["step"] == 1 for group in optimizer.param_groups for one in group["params"])


def test_steps_in_the_meantime_do_not_change_what_a_background_save_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write = Event()

    def write_later(*given: Any, **settings: Any) -> Path:
        assert may_write.wait(timeout=60)
        return write_checkpoint(*given, **settings)

    monkeypatch.setattr("vlm_train.checkpoint_saver.write_checkpoint", write_later)
    module, optimizer = model()
    train(module, optimizer, range(3))
    saver = CheckpointSaver(tmp_path, module=module, optimizer=optimizer, max_keep=5, in_background=True)
    path = saver.save(state(3))
    expected = train(module, optimizer, range(3, 8))
    assert not saver.has_failed
    assert complete_checkpoints(tmp_path) == []
    may_write.set()
    saver.finish()
    saver.close()
    assert complete_checkpoints(tmp_path) == [path]
    module, optimizer = model()
    assert read_state(path) == state(3)
    load_tensors(path, module=module, optimizer=optimizer)
    assert train(module, optimizer, range(3, 8)) == expected


def test_a_background_save_that_failed_is_told_at_the_next_step(tmp_path: Path) -> None:
    module, optimizer = model()
    before = save_checkpoint(tmp_path, state(1), module=module, optimizer=optimizer, max_keep=5)
    (tmp_path / CHECKPOINTS / "step-2.tmp").write_text("a file where the folder should be")
    saver = CheckpointSaver(tmp_path, module=module, optimizer=optimizer, max_keep=5, in_background=True)
    saver.save(state(2))
    while not saver.has_failed:
        time.sleep(0.01)
    with pytest.raises(StorageError, match="step-2: cannot be saved"):
        saver.finish()
    assert not saver.has_failed  # told once
    saver.close()
    assert complete_checkpoints(tmp_path) == [before]


def test_the_checkpoint_with_the_lowest_held_out_loss_stays_beside_the_newest(tmp_path: Path) -> None:
    module, optimizer = model()
    for step, loss in ((1, 3.0), (2, 1.5), (3, 1.5), (4, None), (5, 2.0), (6, 2.5)):
        at = replace(state(step), validation_loss=loss)
        save_checkpoint(tmp_path, at, module=module, optimizer=optimizer, max_keep=2)
    assert complete_checkpoints(tmp_path) == [checkpoint_path(tmp_path, step) for step in (2, 5, 6)]
    assert read_state(checkpoint_path(tmp_path, 2)).validation_loss == 1.5


def test_how_to_save_without_saving_at_all_is_noted(tmp_path: Path) -> None:
    toml = tmp_path / "small.toml"
    text = '[policy]\nmodel_name_or_path = "Qwen/Qwen3-VL-2B"\n[train.ckpt]\n'
    for settings, is_noted in [
        ("", False),
        ("save_freq = 2", True),
        ("save_freq = 2\nenable_checkpoint = true", False),
    ]:
        toml.write_text(text + settings + "\n")
        assert ["train.ckpt.save_freq: no effect" in note for note in unused_settings(load_config(toml))] == (
            [True] if is_noted else []
        )
