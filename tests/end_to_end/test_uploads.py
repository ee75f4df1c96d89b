"""Checkpoints and exports are copied to a real object store beside the steps, and a copy that fails is never hidden."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.end_to_end.test_train_run import Place, build, wait_for_step
from tests.object_server import SECRET_KEY, FaultyProxy, ObjectServer
from tests.small_mixes import write_demo
from transformers import AutoModelForImageTextToText

from vlm_catalogs.config import load_config
from vlm_catalogs.errors import DataError
from vlm_train.checkpoint import complete_checkpoints, read_state
from vlm_train.make_tiny import make_tiny
from vlm_train.upload_s3 import S3Copies

BUCKET = "copies"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    found = ObjectServer(tmp_path_factory.mktemp("store"))
    found.start()
    found.client().create_bucket(Bucket=BUCKET)
    yield found
    found.stop()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("train")
    make_tiny("qwen3_vl", folder / "model")
    write_demo(folder / "data" / "pictures.jsonl", demo_clipart=2)
    write_demo(folder / "data" / "films.jsonl", demo_video=1)
    return build(folder)


def settings(credentials: str, which: str, *more: str) -> list[str]:
    given = [f"train.ckpt.upload_s3='{which}'", f"train.ckpt.s3_bucket='{BUCKET}'", "train.ckpt.s3_prefix='a/b'"]
    given += [f"custom.s3_credentials_path='{credentials}'", "train.max_num_steps=3", "train.ckpt.save_freq=1", *more]
    return [text for one in given for text in ("--set", one)]


def stored(server: ObjectServer, run: str) -> dict[str, bytes]:
    """Key below the run -> content."""
    client = server.client()
    found = client.list_objects_v2(Bucket=BUCKET, Prefix=f"a/b/{run}/").get("Contents", [])
    return {
        one["Key"].removeprefix(f"a/b/{run}/"): client.get_object(Bucket=BUCKET, Key=one["Key"])["Body"].read()
        for one in found
    }


def folders_of(found: dict[str, bytes]) -> set[str]:
    return {key.rpartition("/")[0] for key in found}


def bring(found: dict[str, bytes], name: str, target: Path) -> Path:
    for key, content in found.items():
        if key.startswith(f"{name}/"):
            path = target / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return target / name


@pytest.mark.slow
def test_every_checkpoint_and_the_export_are_copied_whole(place: Place, server: ObjectServer, tmp_path: Path) -> None:
    """Through a server that answers every third request with 503, and with one checkpoint kept here at a time."""
    proxy = FaultyProxy(server.port, fault="503")
    credentials = server.credentials(place.folder / "planted.secret", url=proxy.url)
    run = place.start("all", *settings(credentials, "all", "train.ckpt.max_keep=1"))
    _, said = run.communicate(timeout=300)
    proxy.close()
    assert run.returncode == 0, said
    assert proxy.num_faults > 3
    found = stored(server, "all")
    assert folders_of(found) == {f"checkpoints/step-{step}" for step in (1, 2, 3)} | {"safetensors/step-3"}
    assert [path.name for path in complete_checkpoints(place.folder / "all")] == ["step-3"]
    for step in (1, 2, 3):
        assert read_state(bring(found, f"checkpoints/step-{step}", tmp_path)).step == step
    load: Any = AutoModelForImageTextToText.from_pretrained
    assert load(bring(found, "safetensors/step-3", tmp_path)) is not None
    for folder in folders_of(found):
        written = [path for path in proxy.written if f"/{folder}/" in path]
        assert written[-1].endswith(("/COMPLETE", "/config.json")), "the marker comes last"
        assert len(set(written)) > 2
    assert SECRET_KEY not in said
    own = [path for path in (place.folder / "all").rglob("*") if path.is_file()]
    assert own and not any(SECRET_KEY.encode() in path.read_bytes() for path in own)


def test_wrong_credentials_are_named_at_the_start_and_the_end_and_training_goes_on(
    place: Place, server: ObjectServer, capsys: pytest.CaptureFixture[str]
) -> None:
    path = place.folder / "wrong.secret"
    credentials = server.credentials(path, secret="planted-wrong-secret")
    assert place.main("wrong", *settings(credentials, "final")) == 3
    said = capsys.readouterr().err
    assert "cannot list: not allowed (SignatureDoesNotMatch)" in said and "training goes on" in said
    assert "trained 3 of 3 steps" in said
    for name in ("checkpoints/step-3", "safetensors/step-3"):
        assert f"upload: {name} was NOT copied: s3://{BUCKET}/a/b/wrong/{name}/" in said
        assert (place.folder / "wrong" / name).is_dir()
    assert "run again with --resume" in said
    assert "planted-wrong-secret" not in said
    assert stored(server, "wrong") == {}

    server.credentials(path)
    assert place.main("wrong", *settings(credentials, "final"), "--resume") == 0
    assert folders_of(stored(server, "wrong")) == {"checkpoints/step-3", "safetensors/step-3"}


def test_what_another_run_has_stored_is_not_overwritten(place: Place, server: ObjectServer, tmp_path: Path) -> None:
    credentials = server.credentials(tmp_path / "good.secret")
    given = settings(credentials, "all")[1::2]
    copies = S3Copies.of(load_config(Path(place.toml), overrides=[*given, "train.output_dir=x/mine"]))
    for number, content in enumerate(("one", "two")):
        folder = tmp_path / str(number) / "checkpoints" / "step-1"
        folder.mkdir(parents=True)
        (folder / ".metadata").write_text(content)
        (folder / "COMPLETE").write_text(content)
    assert copies.send(tmp_path / "0" / "checkpoints" / "step-1") == f"s3://{BUCKET}/a/b/mine/checkpoints/step-1"
    copies.send(tmp_path / "0" / "checkpoints" / "step-1")  # the same again
    with pytest.raises(DataError, match=r"step-1/.metadata: is not the file of this run, and nothing is overwritten"):
        copies.send(tmp_path / "1" / "checkpoints" / "step-1")
    assert stored(server, "mine")["checkpoints/step-1/.metadata"] == b"one"


@pytest.mark.slow
def test_a_store_that_is_away_for_a_while_holds_up_no_step(place: Place, tmp_path: Path) -> None:
    own = ObjectServer(tmp_path / "store")
    own.start()
    own.client().create_bucket(Bucket=BUCKET)
    own.stop()
    run = place.start("away", *settings(own.credentials(tmp_path / "good.secret"), "all"))
    assert run.stderr is not None
    wait_for_step(run, 3)
    said = ""
    for line in run.stderr:  # all that training does, with nowhere to copy to
        said += line
        if line.startswith("uploads: waiting for"):
            break
    assert "trained 3 of 3 steps" in said and "checkpoints/step-1" in said
    own.start()
    _, rest = run.communicate(timeout=300)
    assert run.returncode == 0, rest
    assert folders_of(stored(own, "away")) == {
        "checkpoints/step-1", "checkpoints/step-2", "checkpoints/step-3", "safetensors/step-3"
    }  # fmt: skip
    own.stop()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["train.ckpt.upload_s3=true"], "upload_s3: needs the name of a bucket in s3_bucket"),
        (["train.ckpt.upload_hf=true"], "upload_hf: needs name or owner/name in hf_repo_name, got ''"),
    ],
)
def test_uploads_that_cannot_work_are_refused(
    place: Place, given: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.main("refused", *(text for one in given for text in ("--set", one))) == 2
    assert message in capsys.readouterr().err


def test_an_upload_of_nothing_is_said(place: Place) -> None:
    nothing = ["train.ckpt.export_safetensors=false", "train.ckpt.enable_checkpoint=false"]
    uploads = ["train.ckpt.upload_s3='all'", "train.ckpt.s3_bucket='x'", "train.ckpt.upload_hf=true"]
    given = (*nothing, *uploads, "train.ckpt.hf_repo_name='tiny'")
    notes = load_config(Path(place.toml), overrides=given).notes
    assert [one.partition(":")[0] for one in notes if "has no effect without" in one] == [
        "train.ckpt.upload_s3", "train.ckpt.upload_hf"
    ]  # fmt: skip
