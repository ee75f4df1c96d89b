"""Shards and mixes in a real object store: what a local build writes, whatever happens on the way."""

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.object_server import ACCESS_KEY, SECRET_KEY, ObjectServer

from vlm_catalogs.config import load_config
from vlm_catalogs.hashing import content_hash, file_hash
from vlm_prep import compaction
from vlm_prep.cli import main
from vlm_prep.prune import LoosePart, delete_parts, find_loose_parts
from vlm_prep.stores import stores_of
from vlm_train.cli import main as train
from vlm_train.local_ranks import run_locally

DEMO = Path(__file__).parents[1] / "demo_data"
SOURCES = "sources"
TOML = """
[custom]
use_i4 = true
include_video = true
s3_bucket = "{sources}"
s3_credentials_path = "{credentials}"

[policy]
model_name_or_path = "{model}"
model_max_length = 2048

[train]
output_dir = "{folder}/run"
max_num_steps = 3
train_batch_per_replica = 4
param_dtype = "float32"

[mix]
root = "{place}/mixes"
shards = "{place}/shards"
s3_cache = "{folder}/s3_cache"
num_workers = 1
"""


def write_toml(folder: Path, model: Path, credentials: str, *, place: str, more: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "small.toml"
    fields = {"folder": folder, "model": model, "credentials": credentials, "place": place, "sources": SOURCES}
    path.write_text(TOML.format(**fields) + more)
    return path


def stored(server: ObjectServer, bucket: str) -> dict[str, str]:
    """Key -> hash of every object that stays the same, build by build."""
    client = server.client()
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys = [one["Key"] for page in pages for one in page.get("Contents", [])]
    return {
        key: content_hash(client.get_object(Bucket=bucket, Key=key)["Body"].read())
        for key in keys
        if not key.endswith(("build_log.jsonl", "mixes/small/sources.json"))
    }


@pytest.fixture(scope="module")
def local(model: Path, server: ObjectServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The TOML of a mix that has been built from S3 into local folders."""
    folder = tmp_path_factory.mktemp("local")
    toml = write_toml(folder, model, server.credentials(folder / "planted.secret"), place=str(folder / "out"))
    assert main(["build-mix", str(toml)]) == 0
    return toml


@pytest.fixture(scope="module")
def tree(local: Path) -> dict[str, str]:
    """What that build wrote: path -> hash."""
    folder = local.parent / "out"
    return {
        path.relative_to(folder).as_posix(): file_hash(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("build_log.jsonl", "sources.json")
    }


@pytest.fixture(scope="module")
def built(server: ObjectServer, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The TOML of a mix that has been built from S3 into s3://built."""
    folder = tmp_path_factory.mktemp("built")
    server.client().create_bucket(Bucket="built")
    toml = write_toml(folder, model, server.credentials(folder / "planted.secret"), place="s3://built")
    assert main(["build-mix", str(toml)]) == 0
    return toml


def test_a_build_from_s3_to_s3_stores_what_a_local_build_writes(
    server: ObjectServer, built: Path, tree: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert stored(server, "built") == tree
    assert not list((built.parent / "s3_cache").rglob("*.mds"))
    shutil.rmtree(built.parent / "s3_cache")  # it holds nothing that is not in the store
    capfd.readouterr()
    assert main(["build-mix", str(built)]) == 0
    out, err = capfd.readouterr()
    assert "convert: 3 parts, all cached" in err and "measure: 3 parts, all cached" in err
    assert "mix: s3://built/mixes/small/" in out
    assert stored(server, "built") == tree


def without_own_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    """As people who have no settings for boto3."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "EC2_METADATA_DISABLED": "true",
        "SHARED_CREDENTIALS_FILE": "none",
        "CONFIG_FILE": "none",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)


def use_own_chain(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As people without a file of credentials have it."""
    settings = {"ENDPOINT_URL": server.url, "ACCESS_KEY_ID": ACCESS_KEY, "SECRET_ACCESS_KEY": SECRET_KEY}
    for name, value in {**settings, "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)


def losses(toml: Path, *more: str) -> list[float]:
    """Of each step of a run of the TOML."""
    assert train(["run", str(toml), *more]) == 0
    return logged_losses(toml.parent / "run")


def logged_losses(run: Path) -> list[float]:
    return [json.loads(line)["train/loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_training_reads_the_mix_from_s3(built: Path, local: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cache = f"--set=stream.cache={built.parent / 'shard_cache'}"
    assert losses(built, cache) == losses(local)
    assert list((built.parent / "shard_cache").glob("*.mds"))
    capfd.readouterr()
    sheet = built.parent / "sheet.html"
    for command in (
        ["explain", str(built.parent / "run"), "--step", "2", "--html", str(sheet)],
        ["check", str(built)],
        ["inspect", str(built)],
    ):
        assert train(command) == 0
    out, _ = capfd.readouterr()
    assert "mix: s3://built/mixes/small/" in out and ".tar" in out
    assert sheet.read_text().count("data:image/") >= 4


def test_a_mix_in_s3_is_planned_as_a_local_one_with_what_a_node_fetches(
    built: Path, local: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def plan(toml: Path, run: str, *settings: str) -> tuple[int, dict[str, Any], str]:
        capfd.readouterr()
        sets = [f"--set={one}" for one in (f"train.output_dir={tmp_path / run}", "train.max_num_steps=9", *settings)]
        exit_code = train(["plan", str(toml), "--json", *sets])
        out, err = capfd.readouterr()
        return exit_code, json.loads(out)["epochs"][0], err

    shard_bytes = sum(path.stat().st_size for path in (local.parent / "out" / "shards").rglob("*.mds"))
    _, at_home, _ = plan(local, "local")
    exit_code, whole, _ = plan(built, "shards")
    assert exit_code == 0 and whole == at_home
    assert written(tmp_path / "shards") == written(tmp_path / "local")
    assert whole["bytes_per_node"] <= shard_bytes
    _, ranges, _ = plan(built, "ranges", "stream.fetch=ranges", "stream.fetch_ahead=0")
    assert 0 < ranges["working_set_bytes"] <= ranges["bytes_per_node"] <= whole["bytes_per_node"]
    needed = whole["working_set_bytes"]
    exit_code, _, said = plan(built, "small", f"stream.cache_limit={needed - 1}")
    assert exit_code == 2 and f"set cache_limit = {needed} or more" in said
    assert plan(built, "enough", f"stream.cache_limit={needed}")[0] == 0
    assert not list(tmp_path.rglob("*.mds"))  # nothing is fetched for a plan


TWO_NODES = """
import os, socket, sys
socket.gethostname = lambda: "node-" + os.environ["RANK"]
from vlm_train.cli import main
sys.exit(main(["run", {toml!r}, *{settings!r}, "--set=stream.cache={cache}-" + os.environ["RANK"]]))
"""


@pytest.mark.slow
def test_two_nodes_take_the_steps_of_one_and_each_fetches_what_the_plan_says(
    built: Path, local: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run, cache, one_epoch = tmp_path / "two", tmp_path / "cache", "--set=train.max_num_steps=17"
    settings = ["--set=train.train_batch_per_replica=2", "--set=policy.parallelism.dp_shard_size=2"]
    settings += [f"--set=train.output_dir={run}", one_epoch]
    capfd.readouterr()
    assert train(["plan", str(built), "--json", "--ranks=2", "--nodes=2", *settings]) == 0
    plan = json.loads(capfd.readouterr().out)
    program = TWO_NODES.format(toml=str(built), settings=settings, cache=cache)
    assert run_locally([sys.executable, "-c", program], num_processes=2) == 0
    fetched = [sum(one.stat().st_size for one in Path(f"{cache}-{rank}").glob("*.mds")) for rank in (0, 1)]
    assert max(fetched) == plan["epochs"][0]["bytes_per_node"]
    assert train(["run", str(local), one_epoch, f"--set=train.output_dir={tmp_path / 'one'}"]) == 0
    assert logged_losses(run) == pytest.approx(logged_losses(tmp_path / "one"), rel=1e-5)


HELD_OUT = """
[mix.select.eval]
num_samples = 3

[validation]
enable = true
freq = 2
val_before_train = true
batch_size = 2
generate = 2
max_response_length = 4
i4_val = false
"""


@pytest.mark.slow
def test_two_nodes_validate_on_a_mix_in_s3_as_one_process_does_on_a_local_one(
    server: ObjectServer, model: Path, tmp_path: Path, built: Path, local: Path
) -> None:
    """The shards are those of the other tests: only the selection is new."""
    tomls = []
    for base in (local, built):
        toml = tmp_path / f"held-out-{len(tomls)}.toml"
        toml.write_text(base.read_text() + HELD_OUT)
        assert main(["build-mix", str(toml)]) == 0
        tomls.append(toml)
    one, two = tmp_path / "one", tmp_path / "two"
    assert train(["run", str(tomls[0]), f"--set=train.output_dir={one}"]) == 0
    settings = ["--set=train.train_batch_per_replica=2", "--set=policy.parallelism.dp_shard_size=2"]
    settings.append(f"--set=train.output_dir={two}")
    program = TWO_NODES.format(toml=str(tomls[1]), settings=settings, cache=tmp_path / "cache")
    assert run_locally([sys.executable, "-c", program], num_processes=2) == 0
    assert all(list(Path(f"{tmp_path / 'cache'}-{rank}").glob("*.mds")) for rank in (0, 1))
    measured = [
        [json.loads(line) for line in (run / "validation.jsonl").read_text().splitlines()] for run in (one, two)
    ]
    assert [line["step"] for line in measured[0]] == [0, 2, 3]
    for first, second in zip(*measured, strict=True):
        assert second["validation/samples"] == first["validation/samples"] > 0
        for key in (key for key in first if key.startswith("validation/loss")):
            assert second[key] == pytest.approx(first[key], rel=1e-5), key
    answered = [(run / "validation_samples.jsonl").read_text().splitlines() for run in (one, two)]
    assert json.loads(answered[0][0]) == json.loads(answered[1][0])


def written(run: Path) -> dict[str, bytes]:
    """The epoch tables of a run or a plan."""
    return {path.name: path.read_bytes() for path in (run / "epochs").rglob("*.parquet")}


def test_a_mix_in_s3_is_asked_shown_verified_and_exported(
    server: ObjectServer,
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """By its TOML, or by its address with a file of credentials, or with those of boto3's own chain."""
    monkeypatch.chdir(tmp_path)
    without_own_chain(monkeypatch)
    secret = ["--credentials", server.credentials(tmp_path / "planted.secret")]
    question = "select count(*) as n, min(folder) as folder from samples join parts using (part)"
    for path in (str(built), "s3://built/mixes/small", "s3://built/shards", "s3://built/shards/demo_video"):
        given = [] if path == str(built) else secret
        capfd.readouterr()
        assert main(["sql", path, question, "--format", "json", *given]) == 0
        (row,) = json.loads(capfd.readouterr().out)
        assert row["n"] in (68, 14) and row["folder"].startswith("s3://built/shards/demo_")
        assert main(["verify", path, *given]) == 0
    assert not list((tmp_path / "s3_cache").glob(".verify-*"))
    assert main(["export", str(built), str(tmp_path / "exported"), "--format", "jsonl"]) == 0
    assert sum(len(path.read_text().splitlines()) for path in (tmp_path / "exported").glob("*.jsonl")) == 68
    assert not list(tmp_path.rglob("*.mds"))
    place, prune = "s3://built/mixes/small", ["prune", "s3://built/shards", "--mixes", "s3://built/mixes"]
    commands = [
        ["audit", place],
        ["diff", place, place],
        ["export", place, str(tmp_path / "again"), "--format", "webdataset"],
        ["report", place, "--output", str(tmp_path / "report.html")],
        ["show", place, sample_of(place, secret, capfd)],
        prune,
    ]
    for command in commands:
        capfd.readouterr()
        assert main([*command, *secret]) == 0, capfd.readouterr().err
        assert main([*command, "--credentials", "none.secret"]) == 2
        said = "".join(capfd.readouterr())
        assert "none.secret: credentials cannot be read" in said
        assert SECRET_KEY not in said and ACCESS_KEY not in said
    assert main(prune) == 2
    assert (
        "no complete credentials were found (boto3's own credential chain); s3_credentials_path"
        in capfd.readouterr().err
    )
    use_own_chain(server, monkeypatch)
    assert main(prune) == 0


def sample_of(place: str, secret: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """The id of one of its samples."""
    capfd.readouterr()
    assert main(["sql", place, "select min(sample_id) as id from samples", "--format", "json", *secret]) == 0
    return str(json.loads(capfd.readouterr().out)[0]["id"])


def keys(server: ObjectServer, pattern: str) -> list[str]:
    """Of the objects in s3://built that match."""
    return [key for key in stored(server, "built") if re.fullmatch(pattern, key)]


@pytest.mark.parametrize(
    ("damaged", "gone", "advice"),
    [
        (r"shards/demo_photos/.*/lengths/.*", r"{}", "delete the object and build again"),
        (r"shards/demo_photos/.*/samples\.parquet", r"{}/.*", "delete all objects of its folder, part.json first"),
    ],
)
def test_a_damaged_object_is_named_with_what_mends_it(
    server: ObjectServer,
    built: Path,
    tree: dict[str, str],
    capfd: pytest.CaptureFixture[str],
    damaged: str,
    gone: str,
    advice: str,
) -> None:
    (key,) = keys(server, damaged)
    content = bytearray(server.client().get_object(Bucket="built", Key=key)["Body"].read())
    content[len(content) // 4] ^= 1
    server.client().put_object(Bucket="built", Key=key, Body=bytes(content))
    for _ in range(2):  # the copy is not what is wrong
        capfd.readouterr()
        assert main(["build-mix", str(built)]) == 2
        _, err = capfd.readouterr()
        assert f"s3://built/{key}: " in err and advice in err
        assert "s3_cache" not in err
    for one in keys(server, gone.format(key if gone == "{}" else key.rpartition("/")[0])):
        server.client().delete_object(Bucket="built", Key=one)
    assert main(["build-mix", str(built)]) == 0
    assert stored(server, "built") == tree


def test_a_build_of_days_on_another_machine_is_not_taken_for_dead(built: Path) -> None:
    store = stores_of(load_config(built)).shards
    elsewhere = {"pid": 1, "host": "another-host"}
    with store.staging() as staging:
        at = store.copies.location(staging) / "owner.json"  # type: ignore[attr-defined]
        (staging / "owner.json").write_text(json.dumps(elsewhere))
        store.copies.objects.put(at, json.dumps({**elsewhere, "time": 0}).encode())  # type: ignore[attr-defined]
        assert store.live_owners() == []
        (staging / "facts").write_text("of a part")
        store.publish_file(staging / "facts", store.folder / "facts")
        assert [owner.name for owner in store.live_owners()] == [staging.name]
    store.delete(store.folder / "facts")


def test_prune_in_s3_leaves_what_a_mix_pins_by_now(server: ObjectServer, built: Path, tree: dict[str, str]) -> None:
    (record,) = keys(server, r"shards/demo_photos/.*/part\.json")
    layout, _, pinned = record.removesuffix("/part.json").rpartition("/parts/")
    server.client().put_object(Bucket="built", Key=f"{layout}/parts/loose/part.json", Body=b"{}")
    stores, mixes = stores_of(load_config(built)), ["s3://built/mixes"]
    store, copies = stores.shards, stores.copies
    (loose,) = find_loose_parts(store, mixes, copies=copies)
    listed_before = LoosePart(dataset=loose.dataset, layout=loose.layout, kind="parts", name=pinned, bytes=1)
    assert delete_parts(store, [listed_before, loose], mixes, copies=copies) == [loose]
    assert stored(server, "built") == tree


def test_credentials_of_the_toml_reach_held_out_sets_and_benchmarks_in_s3(
    built: Path, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    without_own_chain(monkeypatch)
    shutil.copytree(local.parent / "out", "out")
    toml = Path("small.toml")
    asked = '[mix.select]\nheld_out = ["s3://built/shards/demo_video"]\n[mix.audit]\nbenchmarks = ["s3://built/mixes/small"]\n'
    toml.write_text(local.read_text().replace(str(local.parent / "out"), "out") + asked)
    capfd.readouterr()
    assert main(["build-mix", str(toml)]) == 2  # no sample of one dataset is left
    assert "demo_video: 14 of 14 not selected: held_out" in capfd.readouterr().err
    assert main(["audit", str(toml)]) == 0
    assert "Samples that share a medium or a text with a benchmark: 68 rows" in capfd.readouterr().out


def audited(toml: Path, capfd: pytest.CaptureFixture[str]) -> dict[str, dict]:
    """Name -> finding, of the JSON that the command prints."""
    capfd.readouterr()
    assert main(["audit", str(toml), "--json"]) == 0
    return {one["name"]: one for one in json.loads(capfd.readouterr().out)["findings"]}


def test_a_mix_in_s3_is_audited_when_the_copies_are_gone(
    server: ObjectServer, built: Path, local: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.client().put_object(Bucket="built", Key="shards/other/0123/parts/4567/part.json", Body=b"{}")
    try:
        shutil.rmtree(built.parent / "s3_cache")
        found = audited(built, capfd)
    finally:
        server.client().delete_object(Bucket="built", Key="shards/other/0123/parts/4567/part.json")
    unweighted = found.pop("datasets_without_weight")
    expected = audited(local, capfd)
    assert expected.pop("datasets_without_weight")["num_rows"] == 0
    assert found == expected
    assert "other" in str(unweighted["rows"]), "it is in the store alone"


def test_a_mix_on_this_machine_of_shards_in_s3_gets_its_audit_and_report(
    server: ObjectServer, built: Path, local: Path, tmp_path: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    toml = write_toml(tmp_path, model, server.credentials(tmp_path / "planted.secret"), place="s3://built")
    toml.write_text(toml.read_text().replace("s3://built/mixes", f"{tmp_path}/mixes"))
    capfd.readouterr()
    assert main(["build-mix", str(toml)]) == 0
    assert "not its audit" not in capfd.readouterr().err
    assert list(tmp_path.glob("mixes/small/*/audit.json"))
    shutil.rmtree(tmp_path / "s3_cache")
    assert audited(toml, capfd) == audited(local, capfd)


def test_a_compacted_mix_in_s3_is_read_from_one_object_a_table(
    server: ObjectServer, built: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Stored by the build that finds none, mirrored in the place of the parts' own tables, damaged, pruned."""
    monkeypatch.setattr(compaction, "FEWEST_PARTS", 1)
    cache = built.parent / "s3_cache"
    assert main(["build-mix", str(built)]) == 0
    pattern = r"shards/[^/]+/[^/]+/compacted/[0-9a-f]{32}/"
    assert len(keys(server, pattern + "part.json")) == 3 * 3
    shutil.rmtree(cache)
    question = ["sql", str(built), "select count(*) as n, sum(num_media) as media from facts", "--format", "json"]
    capfd.readouterr()
    assert main(question) == 0
    answer = capfd.readouterr().out
    mirrored = {"/".join(path.parts[-3:-1]) for path in cache.rglob("*.parquet") if path.name != "selection.parquet"}
    assert {place.split("/")[0] for place in mirrored} == {"compacted", "parts"}
    assert {path.name for path in cache.rglob("parts/**/*.parquet")} == {"texts.parquet"}
    assert main(["verify", str(built)]) == 0
    monkeypatch.setattr(compaction, "FEWEST_PARTS", 99)
    capfd.readouterr()
    assert main(question) == 0 and capfd.readouterr().out == answer
    monkeypatch.setattr(compaction, "FEWEST_PARTS", 1)

    (damaged, *_) = keys(server, pattern + "samples.parquet")
    server.client().put_object(Bucket="built", Key=damaged, Body=b"nothing")
    shutil.rmtree(cache)
    assert main(question) == 2
    assert f"s3://built/{damaged}: damaged" in capfd.readouterr().err
    assert main(["verify", str(built), "--repair"]) == 0
    assert not keys(server, damaged.rpartition("/")[0] + "/.*")
    assert main(question) == 0

    stores = stores_of(load_config(built))
    monkeypatch.setattr("vlm_prep.prune.pinned_tables", lambda pins: {})  # as where no mix is of just these parts
    loose = find_loose_parts(stores.shards, ["s3://built/mixes"], copies=stores.copies)
    assert {one.kind for one in loose} == {"compacted"} and len(loose) == 8
    delete_parts(stores.shards, loose, ["s3://built/mixes"], copies=stores.copies)
    assert not keys(server, pattern + ".*")
    assert main(["verify", str(built)]) == 0
