"""Some of it in S3 and some on this machine; parts that are needed, and decoded facts, in S3; two ranks that resume."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.end_to_end.test_s3_mixes import logged_losses, stored, write_toml
from tests.made_media import encoded, noise
from tests.object_server import ObjectServer

from vlm_catalogs import json_text
from vlm_catalogs.hashing import file_hash
from vlm_catalogs.layout import PART_FILE
from vlm_prep import parts
from vlm_prep.cli import main
from vlm_prep.fact_files import DECODED_NAME
from vlm_train.cli import main as train
from vlm_train.local_ranks import run_locally

pytestmark = pytest.mark.slow

DEMO = Path(__file__).parents[1] / "demo_data"
NORMAL = """
[[mix.source]]
name = "normal"
path = "{path}"
"""
NOT_COMPARED = ("build_log.jsonl", "sources.json")


def tree(folder: Path) -> dict[str, str]:
    """What a local build wrote: path -> hash; without what is of one build alone."""
    return {
        path.relative_to(folder).as_posix(): file_hash(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in NOT_COMPARED and ".mirror" not in path.parts
    }


def parts_of(files: dict[str, str]) -> dict[str, str]:
    """Those of parts, without the folder of the shards."""
    return {key.partition("shards/")[2]: value for key, value in files.items() if "/parts/" in key}


@pytest.fixture(scope="module")
def normal(server: ObjectServer) -> str:
    """The address of a JSONL source with its media."""
    server.fill("normal", DEMO / "jsonl", prefix="sets/demo/")
    return "s3://normal/sets/demo"


@pytest.fixture(scope="module")
def secret(server: ObjectServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    return server.credentials(tmp_path_factory.mktemp("secret") / "planted.secret")


@pytest.fixture(scope="module")
def all_local(model: Path, secret: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The parts of the mix of i4 in S3 and JSONL here, in local folders."""
    folder = tmp_path_factory.mktemp("all_local")
    toml = write_toml(folder, model, secret, place=str(folder / "out"), more=NORMAL.format(path=DEMO / "jsonl"))
    assert main(["build-mix", str(toml)]) == 0
    return parts_of(tree(folder / "out"))


def test_i4_in_s3_beside_jsonl_here_into_s3(
    server: ObjectServer, model: Path, secret: str, all_local: dict[str, str], tmp_path: Path
) -> None:
    server.client().create_bucket(Bucket="all")
    toml = write_toml(tmp_path, model, secret, place="s3://all", more=NORMAL.format(path=DEMO / "jsonl"))
    assert main(["build-mix", str(toml)]) == 0
    assert parts_of(stored(server, "all")) == all_local
    assert main(["verify", str(toml)]) == 0


def same_samples(found: dict[str, str], expected: dict[str, str]) -> bool:
    """The same shards of every dataset; the parts of JSONL to the byte (those of i4 are named by ETag or by hash)."""

    def shards(files: dict[str, str]) -> list[tuple[str, str]]:
        return sorted((key.partition("/")[0], content) for key, content in files.items() if key.endswith(".mds"))

    def jsonl(files: dict[str, str]) -> dict[str, str]:
        return {key: content for key, content in files.items() if key.startswith("normal/")}

    return shards(found) == shards(expected) and jsonl(found) == jsonl(expected)


def i4_here_beside(normal: str, secret: str) -> str:
    return f'i4_root = "{DEMO / "i4"}"\n{NORMAL.format(path=normal)}s3_credentials_path = "{secret}"\n'


def test_i4_here_beside_jsonl_in_s3_with_shards_in_s3_and_the_mix_here(
    server: ObjectServer, model: Path, secret: str, normal: str, all_local: dict[str, str], tmp_path: Path
) -> None:
    server.client().create_bucket(Bucket="half")
    toml = write_toml(tmp_path, model, secret, place="s3://half", more=i4_here_beside(normal, secret))
    toml.write_text(toml.read_text().replace("s3://half/mixes", f"{tmp_path}/mixes"))
    for _ in range(2):
        assert main(["build-mix", str(toml)]) == 0
        assert same_samples(parts_of(stored(server, "half")), all_local)
    assert not [key for key in stored(server, "half") if not key.startswith("shards/")]
    assert main(["verify", str(toml)]) == 0
    assert train(["run", str(toml), f"--set=stream.cache={tmp_path / 'cache'}"]) == 0


def test_i4_here_beside_jsonl_in_s3_into_folders_here_and_no_mix_in_s3_of_shards_here(
    model: Path, secret: str, normal: str, all_local: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    toml = write_toml(tmp_path, model, secret, place=str(tmp_path / "out"), more=i4_here_beside(normal, secret))
    assert main(["build-mix", str(toml)]) == 0
    assert same_samples(parts_of(tree(tmp_path / "out")), all_local)
    assert main(["verify", str(toml)]) == 0
    toml.write_text(toml.read_text().replace(f"{tmp_path}/out/mixes", "s3://half/mixes"))
    capfd.readouterr()
    assert main(["build-mix", str(toml)]) == 2
    assert "mix.shards: expected s3://bucket/prefix, since mix.root is in S3" in capfd.readouterr().err


def write_many_parts(server: ObjectServer, folder: Path) -> None:
    """An i4 source of 12 tars of 5 texts each in the bucket ``many``, and its catalogue."""
    import io
    import tarfile

    names = [f"{number:06d}.tar" for number in range(12)]
    for number, name in enumerate(names):
        path = folder / "bucket" / "set" / "texts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for index in range(5):
                turns = [{"role": "user", "content": f"{number}+{index}?"}, {"role": "assistant", "content": "Yes."}]
                info = tarfile.TarInfo(f"{index}.json")
                content = json.dumps(turns).encode()
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    wdinfo = {"root": "set", "data_list": names, "total_key_count": 60}
    (folder / "bucket" / "set" / "wdinfo.json").write_text(json.dumps(wdinfo))
    server.fill("many", folder / "bucket")
    (folder / "listed.py").write_text(
        "from projects.cosmos3.vlm.datasets.utils import DataSource\n"
        "DATAINFO = {'set': DataSource(wdinfo_path={'train': 'set/wdinfo.json'}, text_keys=['texts'],"
        " media_keys=None)}\nweights = {'set': 1}\n"
    )


def test_the_parts_that_are_needed_come_into_s3_and_more_of_them_later(
    server: ObjectServer,
    model: Path,
    secret: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parts, "TAR_PART_BYTES", 1)
    write_many_parts(server, tmp_path)
    server.client().create_bucket(Bucket="needed")

    def build(name: str, place: str, epoch_samples: int) -> Path:
        toml = write_toml(tmp_path / name, model, secret, place=place, more='convert = "needed"\n')
        text = toml.read_text().replace('"sources"', '"many"\ni4_data_source = "listed.weights"')
        toml.write_text(f"{text}epoch_samples = {epoch_samples}\n")
        assert main(["build-mix", str(toml)]) == 0
        assert main(["verify", str(toml)]) == 0
        return toml

    for epoch_samples, taken in ((12, 3), (27, 6)):
        build("here", str(tmp_path / "out"), epoch_samples)
        capfd.readouterr()
        toml = build("there", "s3://needed", epoch_samples)
        assert f"note: set: {taken} of 12 parts are needed and converted" in capfd.readouterr().err
        assert stored(server, "needed") == tree(tmp_path / "out")
        assert sum(key.endswith(PART_FILE) for key in stored(server, "needed")) == taken
    capfd.readouterr()
    assert main(["prune", "s3://needed/shards", "--mixes", "s3://needed/mixes", f"--credentials={secret}"]) == 0
    assert train(["run", str(toml), f"--set=stream.cache={tmp_path / 'cache'}"]) == 0


def test_decoded_facts_come_into_s3_and_are_taken_from_there(
    server: ObjectServer, model: Path, secret: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = bytes(encoded(noise(), "JPEG"))
    data = tmp_path / "data"
    data.mkdir()
    (data / "whole.jpg").write_bytes(whole)
    (data / "cut.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    rows = [
        {"messages": [{"role": "user", "content": f"<image>{name}?"}, {"role": "assistant", "content": "Yes."}],
         "images": [name]}
        for name in ("whole.jpg", "cut.jpg")
    ]  # fmt: skip
    (data / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    server.client().create_bucket(Bucket="decoded")

    def build(name: str, place: str) -> Path:
        toml = write_toml(tmp_path / name, model, secret, place=place, more='decode = "full"\n')
        toml.write_text(toml.read_text().replace("use_i4 = true\n", "") + NORMAL.format(path=data))
        assert main(["build-mix", str(toml)]) == 0
        return toml

    build("here", str(tmp_path / "out"))
    toml = build("there", "s3://decoded")
    found = stored(server, "decoded")
    assert found == tree(tmp_path / "out")
    assert sum(key.endswith(DECODED_NAME) for key in found) == 1
    shutil.rmtree(toml.parent / "s3_cache")
    capfd.readouterr()
    assert main(["build-mix", str(toml)]) == 0
    assert "decode: 1 parts, all cached" in capfd.readouterr().err
    assert main(["verify", str(toml)]) == 0
    (selection,) = toml.parent.rglob("selection.parquet")
    chosen = pq.read_table(selection).to_pylist()
    assert sorted((row["selected"], row["reason"]) for row in chosen) == [(False, "undecodable"), (True, None)]


def test_two_ranks_on_a_mix_in_s3_resume_to_the_bit(
    server: ObjectServer, model: Path, secret: str, tmp_path: Path
) -> None:
    server.client().create_bucket(Bucket="ranks")
    toml = write_toml(tmp_path, model, secret, place="s3://ranks")
    assert main(["build-mix", str(toml)]) == 0

    def run(name: str, *more: str) -> list[dict[str, Any]]:
        settings = [
            "train.train_batch_per_replica=2",
            "policy.parallelism.dp_shard_size=2",
            "train.ckpt.save_mode=sync",
        ]
        settings += [
            "train.ckpt.enable_checkpoint=true",
            "train.ckpt.save_freq=2",
            "train.ckpt.export_safetensors=false",
            "train.optm_decay_type=none",
        ]
        settings += [f"train.output_dir={tmp_path / name}", f"stream.cache={tmp_path / 'cache'}"]
        command = [
            sys.executable,
            "-m",
            "vlm_train.cli",
            "run",
            str(toml),
            *(f"--set={one}" for one in settings),
            *more,
        ]
        assert run_locally(command, num_processes=2) == 0
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return [json_text.loads(line) for line in lines]

    run("whole", "--set=train.max_num_steps=5")
    run("halves", "--set=train.max_num_steps=2")
    shutil.rmtree(tmp_path / "cache")  # another node may go on
    resumed = run("halves", "--set=train.max_num_steps=5", "--resume")
    assert {line["attempt"] for line in resumed} == {1, 2}
    assert logged_losses(tmp_path / "halves") == logged_losses(tmp_path / "whole")
