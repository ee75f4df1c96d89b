"""Builds into a real object store that fails, beside other builds, and killed: what is there in the end is the same."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.end_to_end.test_s3_mixes import stored, use_own_chain, write_toml
from tests.object_server import ACCESS_KEY, SECRET_KEY, FaultyProxy, ObjectServer

from vlm_prep.cli import main

DEMO = Path(__file__).parents[1] / "demo_data"
pytestmark = pytest.mark.slow  # a minute and a half; the quick tests of S3 hold the same store


@pytest.fixture(scope="module")
def whole(server: ObjectServer, model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What an undisturbed build stores."""
    folder = tmp_path_factory.mktemp("whole")
    server.client().create_bucket(Bucket="whole")
    toml = write_toml(folder, model, server.credentials(folder / "planted.secret"), place="s3://whole")
    assert main(["build-mix", str(toml)]) == 0
    return stored(server, "whole")


def place_of(server: ObjectServer, model: Path, folder: Path, bucket: str, *, url: str | None = None) -> Path:
    """A TOML that builds into a new bucket."""
    server.client().create_bucket(Bucket=bucket)
    return write_toml(folder, model, server.credentials(folder / "planted.secret", url=url), place=f"s3://{bucket}")


def names(server: ObjectServer, bucket: str) -> list[str]:
    """What is there now, while a build works: an object that is listed may be gone when it is read."""
    return [one["Key"] for one in server.client().list_objects_v2(Bucket=bucket).get("Contents", [])]


def started(toml: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "vlm_prep.cli", "build-mix", str(toml)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, process_group=0)


@pytest.mark.parametrize("fault", ["503", pytest.param("cut", marks=pytest.mark.slow)])
def test_a_failing_store_changes_nothing_and_no_secret_is_written(
    server: ObjectServer,
    model: Path,
    whole: dict[str, str],
    tmp_path: Path,
    fault: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    proxy = FaultyProxy(server.port, fault=fault)
    try:
        toml = place_of(server, model, tmp_path, f"faulty-{fault}", url=proxy.url)
        assert main(["build-mix", str(toml)]) == 0
        capfd_text = "".join(capfd.readouterr())
        assert main(["sql", str(toml), "select count(*) from samples"]) == 0
        assert main(["verify", str(toml)]) == 0
    finally:
        proxy.close()
    assert proxy.num_faults >= 2
    assert stored(server, f"faulty-{fault}") == whole
    (tmp_path / "planted.secret").unlink()
    said = capfd_text + "".join(capfd.readouterr())
    objects = server.client().list_objects_v2(Bucket=f"faulty-{fault}")["Contents"]
    contents = [server.client().get_object(Bucket=f"faulty-{fault}", Key=one["Key"])["Body"].read() for one in objects]
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(contents) > 10 and len(files) > 10
    for content in [said.encode(), *contents, *files]:
        assert SECRET_KEY.encode() not in content and ACCESS_KEY.encode() not in content


@pytest.mark.parametrize("seconds", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_a_store_that_is_away_in_the_middle_of_a_build_does_not_end_it(
    server: ObjectServer, model: Path, whole: dict[str, str], tmp_path: Path, seconds: int
) -> None:
    bucket = f"away-{seconds}"
    toml = place_of(server, model, tmp_path, bucket)
    build = started(toml)
    deadline = time.monotonic() + 120
    while not any(key.endswith(".mds") for key in names(server, bucket)):  # in the middle: a part has begun
        assert time.monotonic() < deadline and build.poll() is None
        time.sleep(0.02)
    server.stop()
    assert build.poll() is None
    time.sleep(seconds)
    server.start()
    _, err = build.communicate(timeout=240)
    assert build.returncode == 0, err.decode()
    assert stored(server, bucket) == whole


@pytest.mark.parametrize("number", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_a_build_that_is_killed_goes_on_and_stores_the_same(
    server: ObjectServer, model: Path, whole: dict[str, str], tmp_path: Path, number: int
) -> None:
    """Killed when a drawn number of objects is there, on a machine of its own each time: no copies are left to it."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    bucket = f"killed-{number}"
    toml = place_of(server, model, tmp_path / "first", bucket)
    markers = 0
    for moment in sorted(random.Random(seed).sample(range(1, len(whole)), number)):
        build = started(toml)
        while build.poll() is None and len(names(server, bucket)) < moment:
            time.sleep(0.01)
        if build.poll() is None:
            os.killpg(build.pid, signal.SIGKILL)
        build.communicate()
        found = stored(server, bucket)
        assert {key: one for key, one in found.items() if ".staging" not in key}.items() <= whole.items()
        assert sum(key.endswith("part.json") for key in found) >= markers
        markers = sum(key.endswith("part.json") for key in found)
    assert main(["build-mix", str(toml)]) == 0
    assert stored(server, bucket) == whole
    assert not list(tmp_path.rglob(".staging/*"))


def test_two_builds_at_once_store_what_one_stores(
    server: ObjectServer, model: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    toml = place_of(server, model, tmp_path / "one", "both")
    other = write_toml(
        tmp_path / "two", model, server.credentials(tmp_path / "two" / "planted.secret"), place="s3://both"
    )
    builds = [started(toml), started(other), started(toml)]  # two of them share their copies as well
    for build in builds:
        _, err = build.communicate(timeout=240)
        assert build.returncode == 0, err.decode()
    assert stored(server, "both") == whole


def test_a_part_of_another_build_is_never_overwritten(
    server: ObjectServer, model: Path, whole: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    toml = place_of(server, model, tmp_path, "other")
    key = next(key for key in whole if key.endswith("samples.parquet"))
    server.client().put_object(Bucket="other", Key=key, Body=b"of another version")
    assert main(["build-mix", str(toml)]) == 2
    assert f"s3://other/{key}: holds something else than this build" in capfd.readouterr().err
    assert server.client().get_object(Bucket="other", Key=key)["Body"].read() == b"of another version"
    assert f"{key.rpartition('/')[0]}/part.json" not in stored(server, "other")


def test_what_no_mix_pins_is_pruned_in_s3(
    server: ObjectServer,
    model: Path,
    whole: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    use_own_chain(server, monkeypatch)
    toml = place_of(server, model, tmp_path / "pruned", "pruned")
    assert main(["build-mix", str(toml)]) == 0
    (pinned,) = [key for key in whole if "/demo_video/" in key and key.endswith("part.json")]
    loose = pinned.replace(pinned.split("/")[-2], "0" * 32)
    server.client().put_object(Bucket="pruned", Key=loose, Body=b"{}")
    command = ["prune", "s3://pruned/shards", "--mixes", "s3://pruned/mixes"]
    capfd.readouterr()
    assert main(command) == 0
    assert capfd.readouterr().out.startswith(f"s3://pruned/{loose.rpartition('/')[0]}  ")
    assert stored(server, "pruned") == {**whole, loose: stored(server, "pruned")[loose]}
    assert main([*command, "--delete"]) == 0
    assert stored(server, "pruned") == whole


def test_verify_finds_faults_in_s3(
    server: ObjectServer, model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    toml = place_of(server, model, tmp_path, "hurt")
    assert main(["build-mix", str(toml)]) == 0
    keys = sorted(stored(server, "hurt"))
    flipped = next(key for key in keys if "/demo_clipart/" in key and key.endswith(".mds"))
    gone = next(key for key in keys if "/demo_photos/" in key and key.endswith("texts.parquet"))
    extra = f"{flipped.rpartition('/')[0]}/more.bin"
    content = bytearray(server.client().get_object(Bucket="hurt", Key=flipped)["Body"].read())
    content[len(content) // 2] ^= 1
    server.client().put_object(Bucket="hurt", Key=flipped, Body=bytes(content))
    server.client().delete_object(Bucket="hurt", Key=gone)
    server.client().put_object(Bucket="hurt", Key=extra, Body=b"x")
    capfd.readouterr()
    assert main(["verify", str(toml)]) == 3
    said = capfd.readouterr().out
    for line in (f"damaged: s3://hurt/{flipped}: ", f"missing: s3://hurt/{gone}: ", f"extra: s3://hurt/{extra}: "):
        assert line in said
    assert "s3_cache" not in said


def test_plain_streaming_reads_the_shards_in_s3(
    server: ObjectServer, whole: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_own_chain(server, monkeypatch)
    monkeypatch.setenv("S3_ENDPOINT_URL", server.url)
    (index,) = [key for key in whole if "/demo_video/" in key and key.endswith("index.json")]
    reader = (
        "import sys; from streaming import StreamingDataset\n"
        "found = StreamingDataset(remote=sys.argv[1], local=sys.argv[2], shuffle=False, batch_size=1)\n"
        "print(len([sample['sample_id'] for sample in found]))"
    )
    remote = f"s3://whole/{index.rpartition('/')[0]}"
    command = [sys.executable, "-c", reader, remote, str(tmp_path / "local")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.strip() == "14", done.stderr
