"""i4 sources in a real object store: what a local mirror gives, through faults; wrong settings end with one message."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.object_server import ACCESS_KEY, SECRET_KEY, FaultyProxy, ObjectServer

from vlm_catalogs.hashing import file_hash
from vlm_prep.cli import main

TESTS = Path(__file__).parents[1]
BUCKET = "sources"
TOML = """
[custom]
use_i4 = true
include_video = true
s3_bucket = "{bucket}"
s3_credentials_path = "{credentials}"

[policy]
model_name_or_path = "{model}"
model_max_length = 2048

[mix]
root = "{folder}/mixes"
shards = "{folder}/shards"
num_workers = 2
"""


def write_toml(folder: Path, model: Path, credentials: str, *, bucket: str = BUCKET, more: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "small.toml"
    path.write_text(TOML.format(folder=folder, model=model, credentials=credentials, bucket=bucket) + more)
    return path


def built(folder: Path) -> dict[str, list[str]]:
    """Dataset -> the hashes of its shards and texts."""
    return {
        dataset.name: sorted(file_hash(one) for kind in ("*.mds", "texts.parquet") for one in dataset.rglob(kind))
        for dataset in sorted((folder / "shards").iterdir())
        if not dataset.name.startswith(".")
    }


@pytest.fixture(scope="module")
def local(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What a mirror of the bucket gives."""
    folder = tmp_path_factory.mktemp("local")
    toml = write_toml(folder, model, "none.secret", more=f'i4_root = "{TESTS / "demo_data" / "i4"}"\n')
    assert main(["build-mix", str(toml)]) == 0
    return built(folder)


def test_a_bucket_gives_the_shards_that_its_mirror_gives(
    server: ObjectServer, model: Path, local: dict[str, list[str]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    toml = write_toml(tmp_path, model, server.credentials(tmp_path / "planted.secret"))
    assert main(["build-mix", str(toml)]) == 0
    assert built(tmp_path) == local
    assert not list((tmp_path / "shards" / ".staging").glob("*"))
    assert main(["build-mix", str(toml)]) == 0
    out, err = capfd.readouterr()
    assert "all cached" in err
    (tmp_path / "planted.secret").unlink()
    for text in [out, err, *(path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file())]:
        assert SECRET_KEY not in text and ACCESS_KEY not in text


@pytest.mark.parametrize("fault", ["503", pytest.param("cut", marks=pytest.mark.slow)])
def test_a_failing_store_changes_nothing(
    server: ObjectServer, model: Path, local: dict[str, list[str]], tmp_path: Path, fault: str
) -> None:
    proxy = FaultyProxy(server.port, fault=fault)
    try:
        toml = write_toml(tmp_path, model, server.credentials(tmp_path / "planted.secret", url=proxy.url))
        assert main(["build-mix", str(toml)]) == 0
    finally:
        proxy.close()
    assert proxy.num_faults >= 2
    assert built(tmp_path) == local


@pytest.mark.slow
def test_a_store_that_is_away_for_ten_seconds_does_not_end_the_build(
    server: ObjectServer, model: Path, local: dict[str, list[str]], tmp_path: Path
) -> None:
    toml = write_toml(tmp_path, model, server.credentials(tmp_path / "planted.secret"))
    server.stop()
    back = threading.Timer(10, server.start)
    back.start()
    try:
        assert main(["build-mix", str(toml)]) == 0
    finally:
        back.join()
    assert built(tmp_path) == local


@pytest.mark.slow
def test_a_build_from_s3_that_is_killed_goes_on(
    server: ObjectServer, model: Path, local: dict[str, list[str]], tmp_path: Path
) -> None:
    toml = write_toml(tmp_path, model, server.credentials(tmp_path / "planted.secret"))
    command = [sys.executable, "-m", "vlm_prep.cli", "build-mix", str(toml)]
    for seconds in (1.0, 2.0, 3.0):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, process_group=0)
        time.sleep(seconds)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert main(["build-mix", str(toml)]) == 0
    assert built(tmp_path) == local
    assert not list((tmp_path / "shards" / ".staging").glob("*"))


def test_what_is_wrong_is_one_message_that_names_it(
    server: ObjectServer, model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    good = server.credentials(tmp_path / "good.secret")
    wrong = server.credentials(tmp_path / "wrong.secret", secret="another-planted-secret")
    client = server.client()
    client.create_bucket(Bucket="partly")
    for path in sorted((TESTS / "demo_data" / "i4").rglob("wdinfo.json")):
        client.upload_file(str(path), "partly", path.relative_to(TESTS / "demo_data" / "i4").as_posix())
    for credentials, bucket, message in [
        (wrong, BUCKET, "not allowed (SignatureDoesNotMatch)"),
        (good, "no-such-bucket", "no-such-bucket"),
        (good, "partly", "tars of demo_clipart are not there"),
        (str(tmp_path / "missing.secret"), BUCKET, "missing.secret: credentials cannot be read"),
    ]:
        toml = write_toml(tmp_path / "wrong", model, credentials, bucket=bucket)
        assert main(["build-mix", str(toml)]) == 2
        said = " ".join(capfd.readouterr().err.split())
        assert message in said
        assert "another-planted-secret" not in said and SECRET_KEY not in said


def test_an_object_that_changes_during_the_build_is_named(
    server: ObjectServer,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    server.fill("changing", TESTS / "demo_data" / "i4")
    toml = write_toml(tmp_path, model, server.credentials(tmp_path / "planted.secret"), bucket="changing")
    client = server.client()
    keys = [one["Key"] for one in client.list_objects_v2(Bucket="changing")["Contents"] if one["Key"].endswith(".tar")]
    real = shutil.disk_usage
    changed: list[str] = []

    def change_once(path: object) -> object:
        """Space is looked at between listing and reading: the moment for a change."""
        if not changed:
            changed.append(keys[0])
            client.put_object(Bucket="changing", Key=keys[0], Body=b"another tar")
        return real(path)  # type: ignore[call-overload]

    monkeypatch.setattr(shutil, "disk_usage", change_once)
    assert main(["build-mix", str(toml), "--num-workers", "1"]) == 2
    assert f"s3://changing/{keys[0]}: has changed since it was listed" in capfd.readouterr().err


def test_a_normal_dataset_in_s3_gives_the_shards_of_a_local_one(
    server: ObjectServer, model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    demo = TESTS / "demo_data" / "jsonl"
    server.fill("normal", demo, prefix="sets/demo/")
    num_objects = sum(path.is_file() for path in demo.rglob("*"))
    secret = server.credentials(tmp_path / "planted.secret")
    source = '[[mix.source]]\nname = "demo"\npath = "{path}"\n{more}'
    for name, path, more in [
        ("here", str(demo), ""),
        ("there", "s3://normal/sets/demo", f's3_credentials_path = "{secret}"\n'),
    ]:
        toml = write_toml(tmp_path / name, model, secret, more=source.format(path=path, more=more))
        toml.write_text(toml.read_text().replace("use_i4 = true", "use_i4 = false"))
        assert main(["build-mix", str(toml), "--dry-run"]) == 0
        assert not (tmp_path / name / "shards").exists()
        shown = capfd.readouterr().out
        assert (f"{num_objects} objects to copy first" in shown) == (name == "there")
        assert main(["build-mix", str(toml)]) == 0
    main(["build-mix", str(toml), "--dry-run"])
    assert "to copy" not in capfd.readouterr().out
    assert built(tmp_path / "there") == built(tmp_path / "here")
    assert main(["build-mix", str(toml)]) == 0
    assert "all cached" in capfd.readouterr().err
    client = server.client()
    text = (demo / "demo_clipart.jsonl").read_bytes().replace(b"a", b"o")
    client.put_object(Bucket="normal", Key="sets/demo/demo_clipart.jsonl", Body=text)
    client.delete_object(Bucket="normal", Key="sets/demo/demo_video.jsonl")
    capfd.readouterr()
    main(["build-mix", str(toml)])
    copied = {path.name for path in (tmp_path / "there" / "shards" / ".mirror").rglob("*.jsonl")}
    assert "demo_video.jsonl" not in copied and "demo_clipart.jsonl" in copied
    assert "all cached" not in capfd.readouterr().err
    toml.write_text(toml.read_text().replace("sets/demo", "sets/nothing"))
    assert main(["build-mix", str(toml)]) == 2
    assert "there is nothing at s3://normal/sets/nothing" in capfd.readouterr().err
