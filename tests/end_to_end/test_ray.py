"""``--engine ray``: the same bytes as local over a real cluster of two nodes, and clear errors where there is none."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vlm_catalogs.config import load_config
from vlm_catalogs.errors import ConfigError, DataError, StorageError
from vlm_prep import ray_tasks
from vlm_prep.workplace import workplace
from vlm_train.make_tiny import make_tiny

DEMO = Path(__file__).parents[1] / "demo_data" / "jsonl"
BUILD = [str(Path(sys.executable).parent / "vlm-prep"), "build-mix", "mix.toml"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("mix.toml").write_text(
        '[policy]\nmodel_name_or_path = "tiny-Qwen3-VL"\nmodel_max_length = 1024\n[mix]\nengine = "ray"\n'
    )
    return tmp_path


def test_without_ray_the_message_says_how_to_get_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # what an import of a package that is not there meets
    with pytest.raises(ConfigError, match=r"ray is not installed here; pip install 'vlm-mix\[ray\]'"):
        workplace(load_config(Path("mix.toml"))).__enter__()
    assert not Path("shards").exists()


@pytest.mark.parametrize(
    ("address", "says"),
    [("127.0.0.1:1", "Connection refused"), ("local", "expected HOST:PORT"), ("ray://a:b", "invalid")],
)
def test_an_address_without_a_cluster_is_said_at_once(
    place: Path, monkeypatch: pytest.MonkeyPatch, address: str, says: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError, match=rf"no cluster answers at RAY_ADDRESS '{address}' .*{says}.*ray start --head"):
        workplace(load_config(Path("mix.toml"))).__enter__()


def fail(number: int) -> int:
    if number == 3:
        raise DataError("the third is bad")
    return -number


def test_a_node_gives_what_it_should_and_errors_keep_their_message(place: Path) -> None:
    """What runs on a node, run here."""
    assert ray_tasks._perform(str(place), fail, 2) == ray_tasks.Outcome(result=-2)
    assert str(ray_tasks._perform(str(place), fail, 3).error) == "the third is bad"
    lost = ray_tasks._perform(str(place / "nowhere"), fail, 2).error
    assert isinstance(lost, StorageError)
    assert "every node of the cluster sees them under the same path" in str(lost)


CLUSTER = """
import os, subprocess, sys, tempfile
os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_enable_metrics_collection="0")
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
try:
    cluster.add_node(num_cpus=1)
    code = subprocess.run(sys.argv[1:], env={**os.environ, "RAY_ADDRESS": cluster.address}).returncode
finally:
    cluster.shutdown()
sys.exit(code)
"""

SEAM = """
import os, time
from vlm_catalogs.errors import DataError
from vlm_prep.ray_tasks import joined_cluster, run_on_ray
def where(number):
    import ray, time
    time.sleep(1)
    return ray.get_runtime_context().get_node_id(), number, os.getcwd()
def bad(number):
    if number == 1: raise DataError("one is bad")
    return number
def lost_once(path):
    if not os.path.exists(path):
        open(path, "w").close()
        os._exit(1)
    return path
with joined_cluster() as cpus:
    assert cpus == 2, cpus
    done = []
    found = run_on_ray(where, [0, 1, 2, 3], num_workers=cpus, on_done=done.append)
    assert [number for _, number, _ in found] == [0, 1, 2, 3] == sorted(done)
    assert len({node for node, _, _ in found}) == 2
    assert {folder for _, _, folder in found} == {os.getcwd()}
    try:
        run_on_ray(bad, [0, 1, 2], num_workers=1, on_done=lambda _: None)
    except DataError as error:
        assert str(error) == "one is bad"
    else:
        raise AssertionError("no error")
    assert run_on_ray(lost_once, ["tried"], num_workers=1, on_done=lambda _: None) == ["tried"]
print("two nodes")
"""


def tree() -> dict[str, bytes]:
    files = [path for name in ("shards", "mixes") for path in Path(name).rglob("*")]
    return {str(path): path.read_bytes() for path in files if path.is_file() and path.name != "build_log.jsonl"}


@pytest.mark.slow
def test_two_nodes_give_the_same_parts_and_bytes_as_this_machine(place: Path) -> None:
    make_tiny("qwen3_vl", Path("tiny-Qwen3-VL"))
    shutil.copytree(DEMO, "jsonl")
    sources = "".join(
        f"[[mix.source]]\nname = '{file.stem}'\npath = '{file}'\n" for file in Path("jsonl").glob("*.jsonl")
    )
    Path("mix.toml").write_text(
        Path("mix.toml").read_text().replace('[mix]\nengine = "ray"\n', "[custom]\ninclude_video = true\n") + sources
    )
    Path("seam.py").write_text(SEAM)
    subprocess.run([*BUILD, "--num-workers", "1"], check=True, capture_output=True)
    local = tree()
    shutil.rmtree("shards")
    shutil.rmtree("mixes")
    environment = {**os.environ, "TMPDIR": "/tmp"}  # sockets below it have a limit of 107 characters
    build = " ".join([*BUILD, "--engine", "ray"])
    command = [sys.executable, "-c", CLUSTER, "sh", "-c", f"{sys.executable} seam.py && {build}"]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    assert "two nodes" in run.stdout
    assert "convert: 3 parts, 0 cached" in run.stderr
    assert tree() == local
    assert not list(Path("shards/.staging").iterdir())
