"""``vlm-train`` on a mix of the demo data with a tiny Qwen3-VL: what a user sees, in processes of their own."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from tests.small_mixes import DEMO, model_and_mix, source, write_demo
from transformers import AutoModelForImageTextToText, AutoProcessor

from vlm_catalogs.hashing import file_hash
from vlm_train.checkpoint import complete_checkpoints, write_checkpoint
from vlm_train.cli import main
from vlm_train.make_tiny import make_tiny
from vlm_train.run_steps import take_step

NUM_STEPS = 8

TOML = """
[custom]
include_video = true

[train]
epoch = 100
max_num_steps = {steps}
output_dir = "{folder}/never_used"
train_batch_per_replica = 4
optm_lr = 3e-3
optm_warmup_steps = 2
optm_decay_type = "cosine"
param_dtype = "float32"
seed = 3

[train.train_policy]
mini_batch = 2

[train.ckpt]
enable_checkpoint = true
save_freq = 4

[logging]
log_interval = 1
"""
TOML += model_and_mix(512)
TOML += source("pictures", "{folder}/data/pictures.jsonl", media_root="{demo}", weight=3.0)
TOML += source("films", "{folder}/data/films.jsonl", media_root="{demo}", weight=1.0)


@dataclass(frozen=True)
class Place:
    """A built mix, its model and its TOML."""

    folder: Path

    @property
    def toml(self) -> str:
        return str(self.folder / "small.toml")

    def arguments(self, run: str, *more: str) -> list[str]:
        return ["run", self.toml, "--set", f"train.output_dir={self.folder / run}", *more]

    def main(self, run: str, *more: str) -> int:
        return main(self.arguments(run, *more))

    def start(self, run: str, *more: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "vlm_train.cli", *self.arguments(run, *more)]
        return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=one_thread())

    def metrics(self, run: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / run / "metrics.jsonl").read_text().splitlines()]


def one_thread() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def build(folder: Path, *, media_root: Path = DEMO) -> Place:
    (folder / "small.toml").write_text(TOML.format(folder=folder, demo=media_root, steps=NUM_STEPS))
    command = [sys.executable, "-m", "vlm_prep.cli", "build-mix", str(folder / "small.toml")]
    subprocess.run(command, check=True, capture_output=True, env=one_thread(), cwd=folder)
    return Place(folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("train")
    make_tiny("qwen3_vl", folder / "model")
    write_demo(folder / "data" / "pictures.jsonl", demo_clipart=5, demo_photos=2)
    write_demo(folder / "data" / "films.jsonl", demo_video=3)
    return build(folder)


@pytest.fixture(scope="module")
def whole(place: Place) -> str:
    """The name of a run that nothing interrupted."""
    run = place.start("whole")
    _, said = run.communicate(timeout=600)
    assert run.returncode == 0, said
    return "whole"


def wait_for_step(run: "subprocess.Popen[str]", step: int) -> None:
    assert run.stderr is not None
    for line in run.stderr:
        if line.startswith(f"step {step}/"):
            return
    raise AssertionError(f"the run ended before step {step}")


def numbers(line: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on the clock or on the attempt."""
    timed = ("train/useful_tokens_per_second", "data/wait_seconds", "attempt", "train/seconds_left", "train/mfu")
    timed += ("train/peak_memory_bytes",)
    return {name: value for name, value in line.items() if name not in timed}


def test_every_step_has_its_line_with_the_promised_keys(place: Place, whole: str) -> None:
    lines = place.metrics(whole)
    assert [line["step"] for line in lines] == list(range(1, NUM_STEPS + 1))
    promised = {"epoch", "train/loss", "train/lr", "train/grad_norm", "train/supervised_tokens", "attempt"}
    promised |= {"train/useful_tokens_per_second", "train/padding_share", "data/wait_seconds"}
    promised |= {"train/peak_memory_bytes"}
    for line in lines:
        assert promised <= set(line)
        assert {name for name in line if name.startswith("loss/")} <= {"loss/pictures", "loss/films"}
    assert lines[-1]["train/loss"] < lines[0]["train/loss"]
    table = pq.read_table(place.folder / whole / "epochs" / "epoch-00001" / "part-00000.parquet").to_pylist()
    second_epoch = [line for line in lines if line["epoch"] == 1]
    for line in second_epoch:
        rows = [row for row in table if row["step"] == line["epoch_step"]]
        assert sum(row["supervised_tokens"] for row in rows) == line["train/supervised_tokens"]
        assert {f"loss/{row['dataset']}" for row in rows if row["dataset"]} == {n for n in line if n[:5] == "loss/"}


def test_a_run_that_is_stopped_and_killed_ends_as_one_that_was_not(place: Place, whole: str) -> None:
    stopped = place.start("broken")
    wait_for_step(stopped, 1)
    stopped.send_signal(signal.SIGTERM)
    _, said = stopped.communicate(timeout=300)
    assert stopped.returncode == 128 + signal.SIGTERM
    assert "stopped by SIGTERM after step" in said
    assert "--resume" in said

    killed = place.start("broken", "--resume")
    step = random.SystemRandom().randint(4, 7)
    wait_for_step(killed, step)
    killed.kill()
    killed.communicate(timeout=300)
    with (place.folder / "broken" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "train/lo')  # what a kill in the middle of a line leaves

    assert place.main("broken", "--resume") == 0
    latest = {line["step"]: line for line in place.metrics("broken")}  # a later attempt comes later in the file
    assert [numbers(latest[line["step"]]) for line in place.metrics(whole)] == [
        numbers(line) for line in place.metrics(whole)
    ], f"killed after step {step}"
    assert {line["attempt"] for line in place.metrics("broken")} == {1, 2, 3}
    first, second = (load_file(exported(place, run) / "model.safetensors") for run in (whole, "broken"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def exported(place: Place, run: str) -> Path:
    return place.folder / run / "safetensors" / f"step-{NUM_STEPS}"


def test_exports_reload_with_plain_transformers_and_agree(place: Place, whole: str) -> None:
    folder = place.folder / "exported"
    run = str(place.folder / whole)
    assert main(["export", run, str(folder), "--step", str(NUM_STEPS)]) == 0
    reload: Any = AutoModelForImageTextToText.from_pretrained
    processor: Any = AutoProcessor
    ids = processor.from_pretrained(folder).tokenizer("A red apple", return_tensors="pt")
    logits = []
    for path in (folder, exported(place, whole)):
        module, info = reload(path, output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        with torch.no_grad():
            logits.append(module.eval()(**ids).logits)
    assert torch.equal(*logits)
    base = reload(place.folder / "model")
    assert not torch.equal(base.eval()(**ids).logits, logits[0])
    assert main(["export", run, str(folder)]) == 2  # never overwritten
    assert main(["export", run, str(place.folder / "other"), "--step", "5"]) == 2


def test_a_run_that_is_done_says_so_and_changes_nothing(place: Place, whole: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(place.folder / whole, run)
    assert place.main(str(run), "--resume") == 0
    assert [line["step"] for line in place.metrics(str(run))] == list(range(1, NUM_STEPS + 1))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ([], "--resume"),
        (["--resume", "--set", "train.seed=4"], "train.seed: it was 3, now it is 4"),
        (["--resume", "--set", "train.train_batch_per_replica=8"], "rows per step: it was 4, now it is 8"),
        (["--resume", "--set", "train.train_policy.dataloader_seed=1"], "dataloader_seed: it was 0, now it is 1"),
    ],
)
def test_a_used_output_dir_is_refused_by_name(
    place: Place, whole: str, settings: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.main(whole, *settings) == 2
    assert named in capsys.readouterr().err


def test_a_run_does_not_go_on_with_another_mix_length_or_length_policy(
    place: Place, whole: str, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = ["--set", "mix.name=other", "--set", "policy.model_max_length=256", "--set", "mix.length_policy=cut_text"]
    command = [sys.executable, "-m", "vlm_prep.cli", "build-mix", place.toml, *changed]
    subprocess.run(command, check=True, capture_output=True, env=one_thread(), cwd=place.folder)
    assert place.main(whole, *changed, "--resume") == 2
    said = capsys.readouterr().err
    assert "cannot be resumed, because the batches would not go on as they began" in said
    for named in ("mix: it was '", "encoding: it was '", "mix.length_policy: it was 'drop', now it is 'cut_text'"):
        assert named in said
    assert "policy.model_max_length: it was 512, now it is 256" in said


def test_a_damaged_checkpoint_is_an_error_never_a_restart(
    place: Place, whole: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(place.folder / whole, run)
    path = run / "checkpoints" / f"step-{NUM_STEPS}" / "__0_0.distcp"
    flip_a_byte(path)
    assert place.main(str(run), "--resume") == 2
    assert f"{path}: damaged" in capsys.readouterr().err


def test_a_checkpoint_without_its_mark_is_an_error_never_an_earlier_start(
    place: Place, whole: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(place.folder / whole, run)
    (run / "checkpoints" / f"step-{NUM_STEPS}" / "COMPLETE").unlink()
    assert place.main(str(run), "--resume") == 2
    assert f"step-{NUM_STEPS}: damaged: its COMPLETE is missing" in capsys.readouterr().err


def test_a_path_to_resume_from_does_not_mix_two_runs_in_one_folder(
    place: Place, whole: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    (run / "epochs").mkdir(parents=True)
    fingerprint = json.loads((place.folder / whole / "fingerprint.json").read_text())
    fingerprint["fingerprint"]["train.train_policy.dataloader_seed"] = 7
    (run / "fingerprint.json").write_text(json.dumps(fingerprint))
    path = place.folder / whole / "checkpoints" / "step-4"
    assert place.main(str(run), "--set", f"train.resume={json.dumps(str(path))}") == 2
    assert f"{run}: cannot be resumed" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a_file", "a_file/below"])
def test_an_output_dir_that_cannot_be_one_is_the_users_mistake(
    place: Place, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a_file").write_text("mine")
    assert place.main(str(tmp_path / name)) == 2
    assert "train.output_dir" in capsys.readouterr().err
    assert (tmp_path / "a_file").read_text() == "mine"


def test_no_checkpoint_is_saved_at_the_end_when_the_toml_says_so(place: Place, tmp_path: Path) -> None:
    settings = ["train.save_ckpt_at_exit=false", "train.max_num_steps=1", "train.ckpt.export_safetensors=false"]
    assert place.main(str(tmp_path / "run"), *(word for text in settings for word in ("--set", text))) == 0
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_float32_on_bfloat16_weights_is_refused(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.main(str(tmp_path / "run"), "--set", "train.master_dtype=bfloat16") == 2
    assert "bfloat16 weights cannot train in float32" in capsys.readouterr().err


def test_a_run_without_any_whole_checkpoint_starts_at_0_and_says_so(
    place: Place, whole: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(place.folder / whole, run, ignore=shutil.ignore_patterns("step-*"))
    assert place.main(str(run), "--resume", "--set", "train.max_num_steps=1") == 0
    assert "no checkpoint was ever completed; starting at step 0" in capsys.readouterr().err
    again = place.metrics(str(run))[-1]
    assert (again["step"], again["attempt"]) == (1, 2)
    assert again["train/loss"] == place.metrics(whole)[0]["train/loss"]


def test_resume_takes_the_path_of_a_checkpoint_of_another_run(place: Place, whole: str, tmp_path: Path) -> None:
    path = place.folder / whole / "checkpoints" / "step-4"  # within the second epoch
    assert place.main(str(tmp_path / "run"), "--set", f"train.resume={json.dumps(str(path))}") == 0
    expected = [numbers(line) for line in place.metrics(whole)[4:]]
    assert [numbers(line) for line in place.metrics(str(tmp_path / "run"))] == expected


def test_frozen_parameters_stay_as_they_are_and_workers_change_nothing(place: Place, tmp_path: Path) -> None:
    steps = ["--set", "train.max_num_steps=2", "--set", 'policy.freeze_pattern=["visual"]']
    for workers in (0, 2):
        run = str(tmp_path / f"run-{workers}")
        assert place.main(run, *steps, "--set", f"stream.num_workers={workers}") == 0
    lines = [list(map(numbers, place.metrics(str(tmp_path / f"run-{workers}")))) for workers in (0, 2)]
    assert lines[0] == lines[1]
    before = load_file(place.folder / "model" / "model.safetensors")
    after = load_file(tmp_path / "run-0" / "safetensors" / "step-2" / "model.safetensors")
    for name in after:
        assert torch.equal(before[name], after[name]) == ("visual" in name), name


def test_a_toml_that_asks_for_another_mix_names_the_keys_and_the_command(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.main("other", "--set", "mix.seed=5", "--set", "custom.include_video=false") == 2
    said = capsys.readouterr().err
    assert "custom.include_video: the mix has True, the TOML False" in said
    assert "mix.seed: the mix has 0, the TOML 5" in said
    assert f"vlm-prep build-mix {place.toml}" in said
    assert not (place.folder / "other").exists()


def test_another_chat_template_than_was_measured_is_refused(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(place.folder / "model", model)
    template = model / "chat_template.jinja"
    template.write_text(template.read_text() + "{# changed #}")
    assert place.main("other", "--set", f"policy.model_name_or_path={model}") == 2
    assert "measured with another tokenizer, chat template" in capsys.readouterr().err


def copy_of(place: Place, folder: Path) -> Place:
    """The same mix at another place, to be damaged."""
    for name in ("mixes", "shards", "data"):
        shutil.copytree(place.folder / name, folder / name)
    (folder / "model").symlink_to(place.folder / "model")
    text = (place.folder / "small.toml").read_text()
    (folder / "small.toml").write_text(text.replace(str(place.folder), str(folder)))
    return Place(folder)


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_shard_stops_the_run_with_its_lineage(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = copy_of(place, tmp_path)
    (shard,) = (tmp_path / "shards" / "films").glob("*/parts/*/shard.00000.mds")
    flip_a_byte(shard)
    assert copy.main("run") == 2
    said = capsys.readouterr().err
    assert str(shard) in said
    assert "sample films/films.jsonl#00000000" in said
    assert "came from films.jsonl" in said


@pytest.mark.parametrize("damage", ["the shard is gone", "the index is gone too"])
def test_a_missing_shard_is_named_with_what_to_do(
    place: Place, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = copy_of(place, tmp_path)
    (shard,) = (tmp_path / "shards" / "films").glob("*/parts/*/shard.00000.mds")
    shard.unlink()
    if damage == "the index is gone too":
        (shard.parent / "samples.parquet").unlink()
    assert copy.main("run") == 2
    said = capsys.readouterr().err
    assert str(shard) in said
    assert f"move {shard.parent} away and run vlm-prep build-mix" in said


def test_a_part_that_was_replaced_by_another_whole_one_is_found(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = copy_of(place, tmp_path)
    (shard,) = (tmp_path / "shards" / "films").glob("*/parts/*/shard.00000.mds")
    record = shard.parent / "part.json"
    before = file_hash(shard)
    flip_a_byte(shard)
    record.write_text(record.read_text().replace(before, file_hash(shard)))
    assert copy.main("run") == 2
    assert f"{record}: damaged: its content differs from what the mix pins" in capsys.readouterr().err


def test_a_sample_that_does_not_decode_stops_the_run_or_stands_blank(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_demo(tmp_path / "data" / "pictures.jsonl", demo_photos=2)
    write_demo(tmp_path / "data" / "films.jsonl", demo_video=1)
    whole_photo = (DEMO / "media" / "photos" / "coffee.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole_photo[: len(whole_photo) // 2])
    question = [{"type": "image", "image": "half.jpg"}, {"type": "text", "text": "What is this?"}]
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "Half a photograph."}]
    with (tmp_path / "data" / "pictures.jsonl").open("a") as file:
        file.write(json.dumps({"messages": messages}) + "\n")
    (tmp_path / "model").symlink_to(place.folder / "model")
    shutil.copytree(DEMO / "media", tmp_path / "media")
    broken = build(tmp_path, media_root=tmp_path)
    one_step = ["--set", "train.max_num_steps=1"]
    assert broken.main("stops", *one_step) == 2
    said = capsys.readouterr().err
    assert "image_0 does not decode" in said
    assert "max_bad_samples = 0" in said
    assert broken.main("goes_on", *one_step, "--set", "stream.max_bad_samples=1") == 0
    (line,) = broken.metrics("goes_on")
    assert len(line["data/undecodable"]) == 1
    table = pq.read_table(tmp_path / "goes_on" / "epochs" / "epoch-00000" / "part-00000.parquet").to_pylist()
    bad = [row for row in table if row["sample_id"] in line["data/undecodable"][0] and row["dataset"] == "pictures"]
    planned = sum(row["supervised_tokens"] for row in table if row["step"] == 0)
    assert line["train/supervised_tokens"] == planned - sum(row["supervised_tokens"] for row in bad)


def test_a_rate_that_blows_up_stops_and_names_the_samples(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blown = ["--set", "train.optm_lr=1e38", "--set", "train.ckpt.save_freq=1"]
    assert place.main(str(tmp_path / "run"), *blown) == 2
    said = capsys.readouterr().err
    assert "stopped before the weights changed" in said
    assert "pictures/" in said


def test_check_prints_the_plan_and_lists_what_is_missing(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", place.toml]) == 0
    said = capsys.readouterr().out
    assert "mode: Qwen3-VL on normal data" in said
    assert "parameters train (100.0 %)" in said
    assert "pictures: " in said
    assert f"{NUM_STEPS} steps: 2 of warm-up, cosine decay" in said
    assert main(["check", place.toml, "--set", f"mix.root={tmp_path}", "--set", "policy.freeze_pattern=['visul']"]) == 2
    said = capsys.readouterr().out
    assert "missing: policy: pattern 'visul' matches no parameter; nearest: " in said
    assert "no mix has been built here; run vlm-prep build-mix" in said
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    assert main(["check", place.toml, "--set", f"policy.model_safetensor_path='{tmp_path}'"]) == 2
    assert f"missing: weights of {tmp_path / 'model.safetensors'}: damaged: " in capsys.readouterr().out


def test_the_command_line_answers_without_loading_torch() -> None:
    code = "import sys, vlm_train.cli\ntry:\n    vlm_train.cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
    code += "assert not {'torch', 'transformers', 'pyarrow', 'numpy'} & set(sys.modules), 'heavy imports'"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_a_second_signal_does_not_end_the_save_that_the_first_one_asked_for(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[object] = []

    def take_and_stop(*given: Any) -> Any:
        taken.append(take_step(*given))
        if len(taken) == 2:
            os.kill(os.getpid(), signal.SIGUSR1)
        return taken[-1]

    def save_slowly(*given: Any, **settings: Any) -> Path:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)
        return write_checkpoint(*given, **settings)

    monkeypatch.setattr("vlm_train.run.take_step", take_and_stop)
    monkeypatch.setattr("vlm_train.checkpoint_saver.write_checkpoint", save_slowly)
    assert place.main("twice") == 128 + signal.SIGUSR1
    assert [path.name for path in complete_checkpoints(place.folder / "twice")] == ["step-2"]
