"""``verify --repair`` of shards in a real object store: parts come back to the byte, or what changed is named."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.end_to_end.test_s3_mixes import stored, write_toml
from tests.object_server import FaultyProxy, ObjectServer

from vlm_catalogs.config import load_config
from vlm_prep.cli import main
from vlm_prep.stores import stores_of

DEMO = Path(__file__).parents[1] / "demo_data"
BUCKET = "repaired"


@pytest.fixture(scope="module")
def toml(server: ObjectServer, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a mix in s3://repaired, with the demo's photos as files that a test may change."""
    folder = tmp_path_factory.mktemp("repaired")
    shutil.copytree(DEMO / "jsonl", folder / "jsonl")
    server.client().create_bucket(Bucket=BUCKET)
    source = f"[[mix.source]]\nname = 'own'\npath = '{folder}/jsonl/demo_photos.jsonl'\n"
    path = write_toml(folder, model, server.credentials(folder / "planted.secret"), place=f"s3://{BUCKET}", more=source)
    assert main(["build-mix", str(path)]) == 0
    return path


def in_use(server: ObjectServer) -> dict[str, str]:
    """Key -> hash of what has not been put aside."""
    return {key: found for key, found in stored(server, BUCKET).items() if "/.broken/" not in key}


def key_of(server: ObjectServer, dataset: str, end: str) -> str:
    return next(key for key in in_use(server) if f"/{dataset}/" in key and "/parts/" in key and end in key)


def flip(server: ObjectServer, key: str) -> None:
    content = bytearray(server.client().get_object(Bucket=BUCKET, Key=key)["Body"].read())
    content[len(content) // 2] ^= 1
    server.client().put_object(Bucket=BUCKET, Key=key, Body=bytes(content))


def remove(server: ObjectServer, key: str) -> None:
    server.client().delete_object(Bucket=BUCKET, Key=key)


FAULTS: list[tuple[str, str, Callable[[ObjectServer, str], None]]] = [
    ("demo_photos", ".mds", flip),
    ("demo_clipart", "part.json", remove),
    ("demo_video", "/lengths/", flip),
    ("own", "texts.parquet", remove),
]


def test_broken_parts_in_s3_come_back_to_the_byte(
    server: ObjectServer, toml: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before, hurt = in_use(server), []
    for dataset, end, harm in FAULTS:
        hurt.append(key_of(server, dataset, end))
        harm(server, hurt[-1])
    damaged = stored(server, BUCKET)
    assert main(["verify", str(toml), "--num-workers", "1"]) == 3
    capfd.readouterr()
    assert main(["verify", str(toml), "--repair", "--num-workers", "1"]) == 0
    assert "repair: 4 parts made again; what was broken lies in s3://repaired/shards/.broken" in capfd.readouterr().err
    assert in_use(server) == before
    aside = {key: found for key, found in stored(server, BUCKET).items() if "/.broken/" in key}
    assert {damaged[key] for key in (hurt[0], hurt[2])} <= set(aside.values())
    kept = (f"lengths/{hurt[2].rpartition('/')[2]}", "part.json", "shard.00000.mds")
    assert all(any(key.endswith(name) for key in aside) for name in kept)
    assert not list((toml.parent / "s3_cache").rglob("*.mds")) and not list(toml.parent.rglob(".staging/*"))
    assert main(["build-mix", str(toml)]) == 0
    assert "convert: 4 parts, all cached" in capfd.readouterr().err
    assert in_use(server) == before


@pytest.mark.slow
def test_what_would_come_out_otherwise_in_s3_is_named_and_left_alone(
    server: ObjectServer, toml: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = in_use(server)
    flip(server, key_of(server, "own", ".mds"))
    hurt = stored(server, BUCKET)
    medium = next(path for path in sorted((toml.parent / "jsonl" / "media" / "photos").iterdir()))
    content = medium.read_bytes()
    medium.write_bytes(content[:-30] + bytes([content[-30] ^ 1]) + content[-29:])
    try:
        assert main(["verify", str(toml), "--repair", "--num-workers", "1"]) == 2
        said = capfd.readouterr().err
        assert "s3://repaired/shards/own/" in said and "it is not what the mix pins: shard.00000.mds" in said
        assert "s3_cache" not in said
        assert stored(server, BUCKET) == hurt
        text = toml.parent / "jsonl" / "demo_photos.jsonl"
        lines = text.read_bytes()
        text.write_bytes(lines + b"\n\n")
        assert main(["verify", str(toml), "--repair", "--num-workers", "1"]) == 2
        said = capfd.readouterr().err
        assert f"demo_photos.jsonl has {len(lines) + 2:,} bytes, it had {len(lines):,}" in said
        assert stored(server, BUCKET) == hurt
        text.write_bytes(lines)
    finally:
        medium.write_bytes(content)
    with stores_of(load_config(toml)).shards.staging():
        assert main(["verify", str(toml), "--repair", "--num-workers", "1"]) == 2
    assert "s3://repaired/shards: a build is at work here" in capfd.readouterr().err
    assert main(["verify", str(toml), "--repair", "--num-workers", "1"]) == 0
    assert in_use(server) == before


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["503", "cut"])
def test_a_failing_store_does_not_keep_a_part_from_being_repaired(server: ObjectServer, toml: Path, fault: str) -> None:
    before = in_use(server)
    flip(server, key_of(server, "demo_photos", "samples.parquet"))
    proxy = FaultyProxy(server.port, fault=fault)
    try:
        server.credentials(toml.parent / "planted.secret", url=proxy.url)
        assert main(["verify", str(toml), "--repair", "--num-workers", "1"]) == 0
    finally:
        server.credentials(toml.parent / "planted.secret")
        proxy.close()
    assert proxy.num_faults >= 2
    assert in_use(server) == before


@pytest.mark.slow
def test_what_a_killed_verification_copied_is_removed_by_the_next(server: ObjectServer, toml: Path) -> None:
    proxy, cache = FaultyProxy(server.port, fault="slow", pause=0.5), toml.parent / "s3_cache"
    try:
        server.credentials(toml.parent / "planted.secret", url=proxy.url)
        command = [sys.executable, "-m", "vlm_prep.cli", "verify", str(toml), "--num-workers", "1"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, process_group=0)
        deadline = time.monotonic() + 120
        while not list(cache.glob(".verify-*/.part-*")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    finally:
        server.credentials(toml.parent / "planted.secret")
        proxy.close()
    assert list(cache.glob(".verify-*"))
    assert main(["verify", str(toml), "--num-workers", "1"]) == 0
    assert not list(cache.glob(".verify-*")) and not list(cache.rglob(".part-*"))
