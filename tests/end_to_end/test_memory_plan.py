"""What ``vlm-train plan`` says of memory and checkpoints, against what a trainer and a checkpoint really hold."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.end_to_end.test_plan import TOML
from tests.small_mixes import DEMO, write_conversations, write_demo
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from vlm_catalogs.config import Config, load_config
from vlm_prep.cli import main as prep
from vlm_train.checkpoint import RunState, checkpoint_tensors, write_checkpoint
from vlm_train.cli import main as train
from vlm_train.load import load_family_of, load_trainer
from vlm_train.make_tiny import FAMILIES, make_tiny
from vlm_train.memory_plan import plan_memory
from vlm_train.models.meta_model import meta_module

BYTES_OF_A_TENSOR = 4096
"""At most, of a file of a checkpoint, beside the values of each tensor."""


@pytest.fixture(scope="module")
def toml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("memory")
    make_tiny("qwen3_vl", folder / "model")
    write_demo(folder / "pictures.jsonl", demo_clipart=9)
    pairs = [(f"say {number}", "yes " * number) for number in (1, 2, 3, 100)]
    write_conversations(folder / "words.jsonl", pairs)
    (folder / "run.toml").write_text(TOML.format(folder=folder, demo=DEMO))
    assert prep(["build-mix", str(folder / "run.toml")]) == 0
    return folder / "run.toml"


def config_of(model: Path, folder: Path, *settings: str) -> Config:
    (folder / "plain.toml").write_text(f'[policy]\nmodel_name_or_path = "{model}"\n')
    return load_config(folder / "plain.toml", overrides=("train.param_dtype='float32'", *settings))


QUICK = ("qwen3_vl", "nemotron_h_omni")


@pytest.mark.parametrize(
    "family", [one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in FAMILIES]
)
@pytest.mark.parametrize(
    "settings",
    [
        (),
        pytest.param(("policy.freeze_pattern=['q_proj']",), marks=pytest.mark.slow),
        ("policy.lora.target_modules=['q_proj', 'k_proj']",),
    ],
    ids=["whole", "frozen", "lora"],
)
def test_weights_gradients_optimizer_and_checkpoint_are_exact(
    tmp_path: Path, family: str, settings: tuple[str, ...]
) -> None:
    make_tiny(family, tmp_path / "model")
    config = config_of(tmp_path / "model", tmp_path, *settings)
    said = plan_memory(config, meta_module(config)[0], (), num_shards=1)
    trainer, _ = load_trainer(config, load_family_of(config))
    for parameter in trainer.module.parameters():
        if parameter.requires_grad:
            parameter.grad = parameter.detach().clone()
    trainer.optimizer.step()
    tensors: list[Any] = [*trainer.module.parameters(), *trainer.module.buffers()]
    assert said.weights == sum(one.nbytes for one in tensors)
    assert said.gradients == sum(one.grad.nbytes for one in trainer.module.parameters() if one.grad is not None)
    moments = [value for state in trainer.optimizer.state.values() for value in state.values()]
    assert said.optimizer == sum(value.nbytes for value in moments)

    held = checkpoint_tensors(trainer.module, trainer.optimizer, only_trainable=config.policy.lora is not None)
    state = RunState(step=1, epoch=0, epoch_step=1, fingerprint={})
    path = write_checkpoint(tmp_path / "run", state, held, max_keep=1)
    stored = FileSystemReader(path).read_metadata().state_dict_metadata.values()
    found = [one for one in stored if isinstance(one, TensorStorageMetadata)]
    assert said.checkpoint == sum(one.size.numel() * one.properties.dtype.itemsize for one in found)
    on_disk = sum(file.stat().st_size for file in path.glob("*.distcp"))
    assert 0 <= on_disk - said.checkpoint <= BYTES_OF_A_TENSOR * len(found)


def test_shares_are_those_of_the_rank_that_has_most(tmp_path: Path) -> None:
    make_tiny("qwen3_vl", tmp_path / "model")
    config = config_of(tmp_path / "model", tmp_path)
    module = meta_module(config)[0]
    one, two = (plan_memory(config, module, (), num_shards=number) for number in (1, 2))
    assert one.gradients / 2 <= two.gradients < 0.51 * one.gradients
    assert two.checkpoint == one.checkpoint, "of all ranks together"
    many = plan_memory(config, module, (), num_shards=1000)
    assert many.gradients == 4 * sum(one.numel() // len(one) for one in module.parameters()), "a row of each"


@pytest.mark.slow
def test_the_plan_names_the_heaviest_steps_and_check_takes_them(toml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [str(toml), "--set", "train.epoch=1"]
    assert train(["plan", *asked, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    longest, fullest = plan["heaviest"]
    assert longest["padded_tokens"] >= fullest["padded_tokens"] and fullest["patches"] >= longest["patches"] > -1
    assert longest["padded_tokens"] > 200, "the long words, twice"
    assert train(["plan", *asked, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "memory of a rank, MB: about " in said and "a checkpoint: " in said
    assert f"most tokens at once: {longest['padded_tokens']:,} tokens" in said

    check_takes_them(toml, plan, asked, capsys)
    many = [*asked, "--ranks", "2", "--nodes", "2"]
    assert train(["plan", *many, "--dry-run", "--json"]) == 0
    check_takes_them(toml, json.loads(capsys.readouterr().out), many, capsys)


def test_ranks_of_steps_that_are_not_taken_are_refused(toml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(["check", str(toml), "--nodes", "2"]) == 2
    assert "--ranks and --nodes say whose steps --step takes" in " ".join(capsys.readouterr().err.split())
    assert train(["plan", str(toml), "--ranks", "3", "--nodes", "2"]) == 2
    assert "--nodes 2: 3 ranks do not divide by it" in capsys.readouterr().err
    assert not (toml.parent / "planned").exists()


def check_takes_them(toml: Path, plan: Any, asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """``check --step`` takes the heaviest steps of ``plan``."""
    longest, fullest = plan["heaviest"]
    assert train(["check", *asked, "--step"]) == 0
    said = capsys.readouterr().out
    for one, why in ((longest, "most tokens"), (fullest, "most patches")):
        batch = f"a micro-batch of {one['padded_tokens']:,} tokens and {one['patches']:,} patches"
        assert f"step {one['epoch_step']} of epoch {one['epoch']} ({why}): {batch}" in said
    assert " MB resident in memory" in said and "estimate: " in said
    assert not (toml.parent / "planned").exists(), "nothing is written"
