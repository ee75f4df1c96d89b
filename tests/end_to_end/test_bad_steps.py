"""``[train] on_bad_step``: a sample that makes the loss NaN is skipped with its step or stops the run, on all ranks."""

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.end_to_end.test_torchrun import Torchrun
from tests.end_to_end.test_train_ranks import Place
from tests.small_mixes import model_and_mix, source, write_conversations
from transformers import AutoTokenizer

from vlm_prep.cli import main as prep
from vlm_train.cli import main as train
from vlm_train.make_tiny import make_tiny

NUM_STEPS = 9
TOML = """
[train]
max_num_steps = {steps}
epoch = 99
output_dir = "{folder}/never_used"
train_batch_per_replica = 4
optm_lr = 3e-3
optm_warmup_steps = 1
param_dtype = "float32"
on_bad_step = "skip"

[train.train_policy]
mini_batch = 1

[train.ckpt]
enable_checkpoint = true
save_freq = 1
max_keep = -1

[logging]
log_interval = 1
"""
TOML += model_and_mix(512) + source("said", "{folder}/said.jsonl")
POISON = "said.jsonl#000000007"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Twelve samples, one of which alone has a token whose embedding is NaN."""
    folder = tmp_path_factory.mktemp("bad_steps")
    make_tiny("qwen3_vl", folder / "model")
    said = [f"question {number}" for number in range(12)]
    said[7] = "¤"
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    others = {one for number, text in enumerate(said) if number != 7 for one in tokenizer(text)["input_ids"]}
    poisoned = [one for one in tokenizer("¤")["input_ids"] if one not in others]
    assert poisoned
    weights = load_file(folder / "model" / "model.safetensors")
    [name] = [one for one in weights if one.endswith("embed_tokens.weight")]
    weights[name][poisoned] = torch.nan
    save_file(weights, folder / "model" / "model.safetensors", metadata={"format": "pt"})
    write_conversations(folder / "said.jsonl", [(text, "the sky is blue") for text in said])
    (folder / "small.toml").write_text(TOML.format(folder=folder, steps=NUM_STEPS))
    assert prep(["build-mix", str(folder / "small.toml")]) == 0
    return Place(folder, NUM_STEPS)


def run(place: Place, name: str, *settings: str, resume: bool = False) -> int:
    more = [text for one in settings for text in ("--set", one)] + ["--resume"] * resume
    return train(["run", str(place.folder / "small.toml"), "--set", f"train.output_dir={place.folder / name}", *more])


def bad_steps(place: Place, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (place.folder / name / "bad_steps.jsonl").read_text().splitlines()]


def numbers(place: Place, name: str) -> list[tuple[Any, ...]]:
    keys = ("step", "train/loss", "train/grad_norm", "train/lr", "train/bad_step", "loss/said")
    return [tuple(line.get(key) for key in keys) for line in place.metrics(name)]


@pytest.mark.slow
def test_a_step_with_a_poisoned_sample_is_skipped_and_a_resumed_run_goes_on_to_the_bit(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(place, "whole") == 0
    said = " ".join(capsys.readouterr().err.split())
    steps = [line["step"] for line in bad_steps(place, "whole")]
    assert len(steps) == 3  # three steps an epoch, one of them with the sample
    assert f"step {steps[0]}: the loss is not finite (loss nan, gradient norm nan): skipped" in said
    assert f"not finite is the loss of said/{POISON} (said.jsonl" in said
    for line in bad_steps(place, "whole"):
        assert (line["reason"], line["action"], line["loss"]) == ("the loss is not finite", "skipped", None)
        worst, *others = line["samples"]
        assert (worst["sample_id"], worst["is_finite"], worst["loss"]) == (POISON, False, None)
        assert (worst["source"], worst["index_in_shard"]) == ("said.jsonl", 7)
        assert len(others) == 3
        assert all(one["is_finite"] and one["loss"] > 0 for one in others)
    lines = place.metrics("whole")
    assert [line["step"] for line in lines if "train/bad_step" in line] == steps
    assert [line["step"] for line in lines if line["train/loss"] is None] == steps
    assert lines[-1]["train/loss"] < lines[0]["train/loss"]
    assert_equal_weights(place, "whole", steps[0], steps[0] - 1)

    assert run(place, "moved", f"train.max_num_steps={steps[0]}") == 0
    assert run(place, "moved", f"train.max_num_steps={steps[1]}", resume=True) == 0
    assert run(place, "moved", resume=True) == 0
    assert numbers(place, "moved") == numbers(place, "whole")
    first, second = place.weights("whole"), place.weights("moved")
    assert all(torch.equal(first[name].nan_to_num(7), second[name].nan_to_num(7)) for name in first)
    assert train(["explain", str(place.folder / "whole"), "--step", str(steps[0]), "--json"]) == 0
    [explained] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (explained["loss"], explained["samples"][0]["sample_id"]) == (None, POISON)


def assert_equal_weights(place: Place, name: str, step: int, before: int) -> None:
    """Weights after ``step`` are those after ``before``, which is 0 for the model itself."""
    if before == 0:
        return
    folders = []
    for one in (step, before):
        folders.append(place.folder / f"{name}-{one}")
        assert train(["export", str(place.folder / name), str(folders[-1]), "--step", str(one)]) == 0
    first, second = (load_file(folder / "model.safetensors") for folder in folders)
    assert all(torch.equal(first[key].nan_to_num(7), second[key].nan_to_num(7)) for key in first)


def test_without_skipping_the_run_stops_there_and_saves_nothing(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(place, "stopped", "train.on_bad_step=stop") == 2
    said = " ".join(capsys.readouterr().err.split())
    [line] = bad_steps(place, "stopped")
    assert line["action"] == "stopped"
    assert f"step {line['step']}: the loss is not finite" in said
    assert f"stopped before the weights changed; not finite is the loss of said/{POISON}" in said
    assert "bad_steps.jsonl" in said
    assert not (place.folder / "stopped" / "checkpoints" / f"step-{line['step']}").exists()
    assert [one["step"] for one in place.metrics("stopped")][-1] == line["step"]


@pytest.mark.slow
def test_more_bad_steps_than_are_allowed_stop_the_run(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place, "limited", "train.max_skipped_steps=1") == 2
    assert "more than train.max_skipped_steps = 1 steps of this run were bad" in " ".join(
        capsys.readouterr().err.split()
    )
    assert [line["action"] for line in bad_steps(place, "limited")] == ["skipped", "stopped"]
    assert run(place, "limited", "train.max_skipped_steps=1", resume=True) == 2  # the count is part of the checkpoint
    assert run(place, "row", "train.max_skipped_in_a_row=0", "train.ckpt.enable_checkpoint=false") == 2
    assert "more than train.max_skipped_in_a_row = 0" in " ".join(capsys.readouterr().err.split())


SPIKE_SEED = 0
SPIKE = "said.jsonl#000000150"


@pytest.fixture(scope="module")
def spiky(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """An epoch of 200 samples that say one thing, and one that says another."""
    folder = tmp_path_factory.mktemp("spiky")
    make_tiny("qwen3_vl", folder / "model")
    answers = ["the sky is blue"] * 200
    answers[150] = "QUITE another 9 8 7 thing ! ! XYZ"
    messages = [
        [{"role": "user", "content": "tell me"}, {"role": "assistant", "content": answer}] for answer in answers
    ]
    (folder / "said.jsonl").write_text("".join(json.dumps({"messages": one}) + "\n" for one in messages))
    (folder / "small.toml").write_text(TOML.format(folder=folder, steps=50) + "[stream]\nlog_sample_loss = true\n")
    assert prep(["build-mix", str(folder / "small.toml")]) == 0
    return Place(folder, 50)


@pytest.mark.slow
def test_a_step_whose_loss_is_a_spike_is_as_if_never_taken_on_one_rank_and_on_two(spiky: Place) -> None:
    """Its sample comes once an epoch, late enough that the losses before it are low and alike."""
    rule = ("train.spike_mads=3", f"train.train_policy.dataloader_seed={SPIKE_SEED}", "train.epoch=1")
    assert run(spiky, "alone", *rule) == 0
    [line] = bad_steps(spiky, "alone")
    assert (line["reason"], line["action"]) == ("the loss is a spike", "skipped")
    assert line["step"] > 20
    worst, *_ = line["samples"]
    assert (worst["sample_id"], worst["source"], worst["index_in_shard"]) == (SPIKE, "said.jsonl", 150)
    assert_equal_weights(spiky, "alone", line["step"], line["step"] - 1)
    assert run(spiky, "taken", "train.spike_mads=0", *rule[1:]) == 0
    first, taken = spiky.weights("alone"), spiky.weights("taken")
    assert any(not torch.equal(first[name], taken[name]) for name in first), "the step would have changed them"

    two = Torchrun(spiky)
    two.run("two", *rule, "train.train_batch_per_replica=2", "train.ckpt.save_freq=1")
    [other] = bad_steps(spiky, "two")
    assert (other["step"], other["reason"]) == (line["step"], line["reason"])
    assert other["samples"][0]["sample_id"] == SPIKE
    assert_equal_weights(spiky, "two", line["step"], line["step"] - 1)


@pytest.mark.slow
def test_two_ranks_skip_the_same_steps_though_only_one_has_the_sample(place: Place) -> None:
    assert run(place, "alone") == 0
    two = Torchrun(place)
    settings = ("train.train_batch_per_replica=2", "train.ckpt.save_freq=1", "train.ckpt.export_safetensors=true")
    said = two.run("two", *settings)
    assert said.count(": skipped, the weights are those of the step before") == 3
    assert [line["step"] for line in bad_steps(place, "two")] == [line["step"] for line in bad_steps(place, "alone")]
    for line in bad_steps(place, "two"):
        assert {one["row"] for one in line["samples"]} == {0, 1, 2, 3}  # of both ranks
        assert line["samples"][0]["sample_id"] == POISON
    for one, other in zip(numbers(place, "two"), numbers(place, "alone"), strict=True):
        assert [value for value in one if isinstance(value, float)] == pytest.approx(
            [value for value in other if isinstance(value, float)], rel=1e-5
        )
        assert [value is None for value in one] == [value is None for value in other]
    two.run("moved-two", *settings, f"train.max_num_steps={bad_steps(place, 'two')[1]['step']}")
    two.run("moved-two", *settings, resume=True)
    assert numbers(place, "moved-two") == numbers(place, "two")
    stopped = two.start("stopped-two", "train.on_bad_step=stop")
    _, said = stopped.communicate(timeout=300)
    assert stopped.returncode != 0
    assert f"stopped before the weights changed; not finite is the loss of said/{POISON}" in " ".join(said.split())
