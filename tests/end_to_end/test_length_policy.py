"""The same samples under each length policy: what is selected, what is said, what trains, what resume refuses."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.small_mixes import DEMO, model_and_mix, source

from vlm_catalogs.manifest import current_mix, read_manifest
from vlm_prep.cli import main as prep
from vlm_train.cli import main as train
from vlm_train.make_tiny import make_tiny

LENGTH = 256
LONG = "one more word and " * 60

TOML = """
[train]
max_num_steps = 2
train_batch_per_replica = 2
sequence_packing = true
param_dtype = "float32"
output_dir = "{folder}/run"

[train.train_policy]
mini_batch = 1

[train.ckpt]
enable_checkpoint = true
export_safetensors = false
"""
TOML += model_and_mix("{length}") + source("said", "{folder}/said.jsonl", media_root="{demo}")


def turn(role: str, *items: object) -> dict[str, object]:
    return {"role": role, "content": [{"type": "text", "text": one} if isinstance(one, str) else one for one in items]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("lengths")
    make_tiny("qwen3_vl", place / "model")
    picture = sorted(DEMO.glob("media/**/*.jpg"))[0].relative_to(DEMO).as_posix()
    large = {"type": "image", "image": picture, "min_pixels": 1024 * 512}
    conversations = {
        "short": [turn("user", "what?"), turn("assistant", "that")],
        "long answer": [turn("user", "what?"), turn("assistant", LONG)],
        "long question": [turn("user", LONG), turn("assistant", "that")],
        "large picture": [turn("user", large, "what?"), turn("assistant", "that")],
    }
    (place / "said.jsonl").write_text("".join(json.dumps({"messages": one}) + "\n" for one in conversations.values()))
    (place / "mix.toml").write_text(TOML.format(folder=place, length=LENGTH, demo=DEMO))
    return place


def build(folder: Path, policy: str) -> list[tuple[str | None, bool, int]]:
    """Of each sample: why it is left out, whether it was shortened, its tokens."""
    assert prep(["build-mix", str(folder / "mix.toml"), "--set", f"mix.length_policy={policy}"]) == 0
    mix = current_mix(folder / "mixes" / "mix")
    assert read_manifest(mix).length_policy == policy
    rows = pq.read_table(mix / "selection.parquet").to_pylist()
    return [(row["reason"], row["full_tokens"] > row["total_tokens"], row["total_tokens"]) for row in rows]


def test_each_policy_keeps_what_it_can_and_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    too_long, mute = "longer_than_model_max_length", "no_supervised_tokens"
    found = build(folder, "drop")
    assert [reason for reason, _, _ in found] == [None, too_long, too_long, too_long]
    assert "shortened" not in capsys.readouterr().err
    found = build(folder, "shrink_media")
    assert [reason for reason, _, _ in found] == [None, too_long, too_long, None]
    assert found[3][1]
    assert found[3][2] <= LENGTH
    assert "said: 1 samples are shortened to fit by mix.length_policy: " in " ".join(capsys.readouterr().err.split())
    found = build(folder, "cut_text")
    assert [reason for reason, _, _ in found] == [None, None, mute, too_long]
    assert found[1] == (None, True, LENGTH)


def test_training_shortens_alike_and_a_resumed_run_may_not_change_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    selected = [tokens for reason, _, tokens in build(folder, "shrink_media") if reason is None]
    toml, policy = str(folder / "mix.toml"), ["--set", "mix.length_policy=shrink_media"]
    assert train(["run", toml, *policy]) == 0
    rows = pq.read_table(folder / "run" / "epochs" / "epoch-00000" / "part-00000.parquet").to_pylist()
    assert sorted(row["tokens"] for row in rows if row["status"] == "planned") == sorted(selected)
    assert train(["run", toml, "--set", "mix.length_policy=cut_text", "--resume"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "mix.length_policy: the mix has 'shrink_media', the TOML 'cut_text'" in said
    build(folder, "cut_text")
    capsys.readouterr()
    assert train(["run", toml, "--set", "mix.length_policy=cut_text", "--resume"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "mix.length_policy: it was 'shrink_media', now it is 'cut_text'" in said
