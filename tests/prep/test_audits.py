"""Every audit query finds its planted fault and no other dataset; a clean corpus gives neither error nor warning."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.planted_faults import COMPANIONS, FAULTS, I4_FAULTS, write_clean, write_planted

import vlm_prep.audit
from vlm_catalogs import json_text
from vlm_catalogs.config import load_config
from vlm_catalogs.manifest import current_mix
from vlm_catalogs.tables import EPOCH, SAMPLE_LOSS
from vlm_prep.audit import read_queries, run_audit
from vlm_prep.audit.findings import FOUND, NOT_RUN, Audit, AuditFinding
from vlm_prep.build import build_mix
from vlm_train.make_tiny import make_tiny

Corpus = Callable[[Path], Path]


def build(folder: Path, write: Corpus) -> Path:
    """The TOML of a corpus whose mix is built."""
    toml = write(folder / "corpus")
    make_tiny("qwen3_vl", folder / "corpus" / "tiny")
    before = Path.cwd()
    os.chdir(toml.parent)
    try:
        build_mix(load_config(toml))
    finally:
        os.chdir(before)
    return toml


def audit(toml: Path, path: Path | None = None) -> Audit:
    config = load_config(toml)
    mix = current_mix(Path(config.mix.root) / config.mix_name)
    return run_audit(str(path or mix), section=config.mix.audit)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, AuditFinding]:
    """Query -> what it finds in the corpus of faults, all rows of it; built by the first of several test processes."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    said = shared / "planted-audit.json"
    with (shared / "planted.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.exists():
            said.write_text(audit_of_planted(tmp_path_factory.mktemp("planted")))
    return {one["name"]: AuditFinding(**one) for one in json_text.loads(said.read_bytes())["findings"]}


def audit_of_planted(folder: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vlm_prep.audit, "SHOWN_ROWS", 10_000)
        found = audit(build(folder, write_planted))
    assert not found.broken
    return found.as_json()


@pytest.fixture(scope="module")
def clean_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("clean"), write_clean)


@pytest.fixture
def clean(clean_once: Path, tmp_path: Path) -> Path:
    """The TOML of a corpus without a fault, to be tampered with."""
    shutil.copytree(clean_once.parent, tmp_path / "corpus")
    toml = tmp_path / "corpus" / "mix.toml"
    toml.write_text(toml.read_text().replace(str(clean_once.parent), str(toml.parent)))
    return toml


def severe(findings: dict[str, AuditFinding], dataset: str) -> set[str]:
    """The queries of severity E and W that name a dataset."""
    return {
        one.name
        for one in findings.values()
        if one.severity != "I" and any(row[one.columns.index("dataset")] == dataset for row in one.rows)
    }


@pytest.mark.parametrize("name", [*FAULTS, *I4_FAULTS])
def test_a_planted_fault_is_found_by_its_query_alone(name: str, planted: dict[str, AuditFinding]) -> None:
    finding = planted[name]
    assert finding.status == FOUND
    assert name in [row[finding.columns.index("dataset")] for row in finding.rows]
    expected = COMPANIONS.get(name, set()) | ({name} if finding.severity != "I" else set())
    assert severe(planted, name) == expected
    if finding.severity != "I":
        named = {row[finding.columns.index("dataset")] for row in finding.rows}
        assert named == {name, *(other for other, more in COMPANIONS.items() if name in more)}


def test_a_clean_corpus_gives_no_error_and_no_warning(clean_once: Path) -> None:
    found = {one.name: one for one in audit(clean_once).findings}
    assert {name for name, one in found.items() if one.status == FOUND and one.severity != "I"} == set()
    assert {name for name, one in found.items() if one.status == NOT_RUN} == {*OF_A_RUN, "wdinfo_counts"}


def rewrite(path: Path, column: str, change: Callable[[list], None]) -> None:
    table = pq.read_table(path)
    values = table[column].to_pylist()
    change(values)
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, column, pa.array(values, table.schema.field(column).type)), path)


def mix_of(toml: Path) -> Path:
    return current_mix(toml.parent / "mixes" / "mix")


def duplicate_sample_ids(toml: Path) -> Path:
    part = next((toml.parent / "shards" / "one").glob("*/parts/*"))
    shutil.copytree(part, part.with_name("0" * 32))
    return toml.parent / "shards"


def shard_offsets(toml: Path) -> Path:
    part = next((toml.parent / "shards" / "one").glob("*/parts/*"))
    rewrite(part / "samples.parquet", "byte_end", lambda ends: ends.__setitem__(3, ends[3] + 1))
    return mix_of(toml)


def mix_drift(toml: Path) -> Path:
    path = mix_of(toml) / "manifest.json"
    manifest = json_text.loads(path.read_bytes())
    manifest["datasets"][0]["share"], manifest["datasets"][1]["share"] = 0.2, 0.8
    path.write_text(json_text.dumps_indented(manifest))
    return mix_of(toml)


def eval_leakage_by_media(toml: Path) -> Path:
    media = next((toml.parent / "shards" / "one").glob("*/parts/*/media.parquet"))
    hashes = dict(zip(*(pq.read_table(media)[name].to_pylist() for name in ("sample_id", "xxh3_128")), strict=True))
    rows = pq.read_table(mix_of(toml) / "selection.parquet").to_pylist()
    split = {row["sample_id"]: row["split"] for row in rows if row["dataset"] == "one"}
    of_eval = next(hashes[sample] for sample in hashes if split[sample] == "eval")
    place = next(number for number, sample in enumerate(hashes) if split[sample] == "train")
    rewrite(media, "xxh3_128", lambda values: values.__setitem__(place, of_eval))
    return mix_of(toml)


def datasets_without_weight(toml: Path) -> Path:
    shutil.copytree(toml.parent / "shards" / "one", toml.parent / "shards" / "forgotten")
    return mix_of(toml)


def a_run(toml: Path, order: str) -> Path:
    """A run whose epoch has these datasets in a row: o is one, t is two."""
    run = toml.parent / "run"
    (run / "epochs" / "epoch-00000").mkdir(parents=True)
    (run / "config.toml").write_text(toml.read_text().replace("[mix]\n", '[mix]\nname = "mix"\n'))
    (run / "fingerprint.json").write_text(json_text.dumps({"fingerprint": {"mix": mix_of(toml).name}}))
    names = [{"o": "one", "t": "two"}[one] for one in order]
    rows = [
        dict.fromkeys(EPOCH.names, 0)
        | {"step": step, "dataset": name, "sample_id": "x", "part": "", "status": "planned"}
        for step, name in enumerate(names)
    ]
    pq.write_table(pa.Table.from_pylist(rows, EPOCH), run / "epochs" / "epoch-00000" / "part-00000.parquet")
    return run


def epoch_drift(toml: Path) -> Path:
    return a_run(toml, "oto" * 130)


def longest_run_of_one_dataset(toml: Path) -> Path:
    return a_run(toml, "tot" * 60 + "o" * 60)


def seen_drift(toml: Path) -> Path:
    run = a_run(toml, "tot" * 60)
    (run / "sample_loss" / "rank-00000").mkdir(parents=True)
    rows = [
        dict.fromkeys(SAMPLE_LOSS.names, 0) | {"step": step, "dataset": "one", "sample_id": "x"} for step in range(120)
    ]
    pq.write_table(pa.Table.from_pylist(rows, SAMPLE_LOSS), run / "sample_loss" / "rank-00000" / "part-00000.parquet")
    return run


OF_A_RUN = {
    "epoch_drift": epoch_drift,
    "longest_run_of_one_dataset": longest_run_of_one_dataset,
    "seen_drift": seen_drift,
}
TAMPERED = {
    "duplicate_sample_ids": duplicate_sample_ids,
    "shard_offsets": shard_offsets,
    "mix_drift": mix_drift,
    "eval_leakage_by_media": eval_leakage_by_media,
    "datasets_without_weight": datasets_without_weight,
    **OF_A_RUN,
}
"""Query -> how a built corpus without faults comes to have this one, which no build makes."""


@pytest.mark.parametrize("name", TAMPERED)
def test_a_fault_that_no_build_makes_is_found_where_it_was_put(name: str, clean: Path) -> None:
    found = {one.name: one for one in audit(clean, TAMPERED[name](clean)).findings}
    assert found[name].status == FOUND
    also = {"duplicate_samples", "shard_offsets"} if name == "duplicate_sample_ids" else set()
    severe_found = {one.name for one in found.values() if one.status == FOUND and one.severity != "I"}
    assert severe_found - {name} == also


def test_every_query_has_a_planted_fault() -> None:
    queries, _ = read_queries()
    assert sorted(query.name for query in queries) == sorted([*FAULTS, *I4_FAULTS, *TAMPERED])
