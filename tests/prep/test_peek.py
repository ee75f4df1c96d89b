"""``vlm-prep peek``: the form of a source and its first samples, as they would be stored; nothing is written."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vlm_catalogs.errors import ConfigError, DataError
from vlm_prep.built_sample import BuiltSample
from vlm_prep.peek import peek_source
from vlm_prep.peek_text import sample_text
from vlm_prep.raw_sample import RejectedSample

DEMO = Path(__file__).parents[1] / "demo_data"
COMMAND = Path(sys.executable).parent / "vlm-prep"


def kept(path: Path, num_samples: int = 1000) -> list[BuiltSample]:
    samples = peek_source(str(path), num_samples=num_samples).samples
    return [sample for sample in samples if isinstance(sample, BuiltSample)]


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("i4/demo_clipart/wdinfo.json", "i4"),
        ("i4/demo_video", "i4"),
        ("jsonl", "jsonl"),
        ("jsonl/demo_photos.jsonl", "jsonl"),
        ("llava/demo_llava.json", "llava"),
        ("llava", "llava"),
    ],
)
def test_the_form_is_seen_and_the_first_samples_are_shown(path: str, form: str) -> None:
    peek = peek_source(str(DEMO / path), num_samples=3)
    assert peek.form == form
    assert [type(sample) for sample in peek.samples] == 3 * [BuiltSample]


@pytest.mark.parametrize("dataset", ["demo_clipart", "demo_photos", "demo_video"])
def test_i4_and_jsonl_look_the_same(dataset: str) -> None:
    of_i4, of_jsonl = kept(DEMO / "i4" / dataset), kept(DEMO / "jsonl" / f"{dataset}.jsonl")
    assert len(of_i4) == len((DEMO / "jsonl" / f"{dataset}.jsonl").read_text().splitlines())
    shown = [[(s.messages_json, s.media_table_json) for s in samples] for samples in (of_i4, of_jsonl)]
    assert sorted(shown[0]) == sorted(shown[1])


def test_what_comes_after_the_asked_samples_is_not_read(tmp_path: Path) -> None:
    message = json.dumps({"messages": [{"role": "user", "content": "a"}]})
    (tmp_path / "a.jsonl").write_text(message + "\n")
    (tmp_path / "b.json").write_text("{")
    assert len(peek_source(str(tmp_path / "a.jsonl"), num_samples=0).samples) == 0
    (tmp_path / "b.json").rename(tmp_path / "b.jsonl")
    assert [type(s) for s in peek_source(str(tmp_path), num_samples=1).samples] == [BuiltSample]
    both = peek_source(str(tmp_path), num_samples=5).samples
    assert [type(s) for s in both] == [BuiltSample, RejectedSample]


def test_a_sample_that_would_be_rejected_says_why(tmp_path: Path) -> None:
    asked = [{"role": "user", "content": [{"type": "image", "image": "gone.png"}]}]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": asked}) + "\n")
    (sample,) = peek_source(str(tmp_path), num_samples=5).samples
    assert re.match(r"--- a\.jsonl#000000000\nrejected: missing_media: gone\.png", sample_text(sample))


def test_what_a_terminal_would_obey_is_shown_escaped_and_long_texts_are_cut(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "\x1b[2Jred\nnext ü"},
        {"role": "assistant", "content": "x" * 1000, "reasoning_content": "Hm."},
    ]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": [turns, turns[:1]]}) + "\n")
    (sample,) = peek_source(str(tmp_path), num_samples=5).samples
    text = sample_text(sample)
    assert "\x1b" not in text
    assert "user: \\x1b[2Jred\n    next ü\n" in text
    assert "assistant: (thinks: Hm.) xxx" in text
    assert "x... (1,014 characters)\nalternative 1:\nuser:" in text


def test_text_only_i4_is_read_without_media(tmp_path: Path, small: Any, write_i4: Any) -> None:
    write_i4({"texts": {"0.tar": [("a.json", small.asking())]}})
    peek = peek_source(str(tmp_path / "bucket" / "set"), num_samples=5)
    assert (peek.form, "media in nothing" in peek.about, len(peek.samples)) == ("i4", True, 1)


def test_a_tar_that_is_missing_is_named(tmp_path: Path, small: Any, write_i4: Any) -> None:
    tars = {"texts": {"0.tar": [("a.json", small.asking())]}, "media": {"0.tar": []}}
    write_i4(tars, data_list=["0.tar", "1.tar"])
    assert len(peek_source(str(tmp_path / "bucket" / "set"), num_samples=1).samples) == 1
    with pytest.raises(DataError, match=r"1\.tar: named in data_list, but it is not there"):
        peek_source(str(tmp_path / "bucket" / "set"), num_samples=5)


@pytest.mark.parametrize("path", ["nowhere", "s3://bucket/set"])
def test_a_wrong_path_is_a_config_error(path: str) -> None:
    with pytest.raises(ConfigError, match=path):
        peek_source(path, num_samples=1)


def test_a_mirror_of_half_a_bucket_is_explained(tmp_path: Path) -> None:
    (tmp_path / "wdinfo.json").write_text(json.dumps({"root": "s3://b/away/set", "data_list": ["0.tar"]}))
    with pytest.raises(DataError, match="its root 's3://b/away/set' is in no folder above it"):
        peek_source(str(tmp_path), num_samples=1)


def test_the_command_prints_form_and_samples_and_writes_nothing(tmp_path: Path) -> None:
    command = [COMMAND, "peek", str(DEMO / "jsonl" / "demo_video.jsonl"), "-n", "2"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.match(
        r"form: jsonl \(1 files, .*\)\n--- demo_video\.jsonl#000000000\nvideo_0: mp4, 160 x 90, ", run.stdout
    )
    assert run.stdout.count("---") == 2
    assert not any(tmp_path.iterdir())
    wrong = subprocess.run([COMMAND, "peek", "nowhere"], capture_output=True, check=False)
    assert (wrong.returncode, wrong.stdout) == (2, b"")
