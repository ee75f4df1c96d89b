"""``vlm-train inspect``: what is printed is what is trained on."""

import json
import re

import pytest
from tests.small_mixes import DEMO, demo_lines, model_and_mix, source

from vlm_prep.cli import main as prep
from vlm_train.cli import main as train
from vlm_train.make_tiny import make_tiny

TOML = """
[custom]
include_video = true
"""
TOML += model_and_mix(1024) + source("demo", "{folder}/data.jsonl", media_root="{demo}")
EMPTY_ANSWER = {"messages": [{"role": "user", "content": "and you?"}]}


@pytest.fixture(scope="module")
def toml(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("inspect")
    make_tiny("qwen3_vl", folder / "model")
    lines = demo_lines(demo_clipart=1, demo_video=1)
    (folder / "data.jsonl").write_text("\n".join([*lines, json.dumps(EMPTY_ANSWER)]) + "\n")
    (folder / "small.toml").write_text(TOML.format(folder=folder, demo=DEMO))
    assert prep(["build-mix", str(folder / "small.toml")]) == 0
    return str(folder / "small.toml")


def answer(number: int) -> str:
    line = demo_lines(demo_clipart=1, demo_video=1)[number]
    content = next(one["content"] for one in json.loads(line)["messages"] if one["role"] == "assistant")
    return content if isinstance(content, str) else "".join(item["text"] for item in content)


@pytest.mark.parametrize("number", [0, 1])
def test_only_the_answer_with_its_end_is_marked(toml: str, capsys: pytest.CaptureFixture[str], number: int) -> None:
    capsys.readouterr()
    assert train(["inspect", toml, "--sample", f"data.jsonl#{number:09d}"]) == 0
    said = capsys.readouterr().out
    assert f"«{answer(number)}<|im_end|>»" in said
    assert said.count("«") == 1
    assert ("image_0: " if number == 0 else "video_0: ") in said
    assert "1 samples have no supervised token and are left out:\n  demo/data.jsonl#000000002" in said
    spans = re.findall(r"(user|assistant): tokens (\d+) to (\d+), (?:supervised (\d+) to (\d+)|not supervised)", said)
    assert [role for role, *_ in spans] == ["user", "assistant"]
    assert spans[0][3] == "" and int(spans[1][1]) < int(spans[1][3]) < int(spans[1][4]) <= int(spans[1][2])


def test_json_has_the_numbers_of_the_index(toml: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert train(["inspect", toml, "--sample", "demo/data.jsonl#000000000", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["total_tokens"] == found["text_tokens"] + found["image_tokens"]
    assert found["media"][0]["num_tokens"] == found["image_tokens"] > 0
    assistant = found["turns"][-1]
    assert assistant["supervised"] == f"{answer(0)}<|im_end|>"
    assert found["supervised_tokens"] == assistant["supervised_end"] - assistant["supervised_begin"]
    assert [turn["role"] for turn in found["turns"]] == ["user", "assistant"]
    mix = found["mix"]
    assert (mix["samples"], mix["without_labels"]) == (2, ["demo/data.jsonl#000000002"])
    assert 0 < found["supervised_tokens"] < mix["supervised_tokens"] < mix["tokens"]


def test_a_sample_that_is_not_there_is_said(toml: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(["inspect", toml, "--sample", "nobody"]) == 2
    assert "--sample nobody: no sample of this mix has that id" in capsys.readouterr().err
