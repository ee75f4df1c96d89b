"""The data of a mix's page against the mix: numbers, the seeded choice of samples, bounds, the same bytes again."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from vlm_catalogs.manifest import current_mix, read_manifest
from vlm_catalogs.page import page_html
from vlm_prep.after_build import audit_and_report
from vlm_prep.cli import main as prep

MIX = Path("mixes/mix")


def page_of(*options: str, mix: Path = MIX) -> str:
    assert prep(["report", str(mix), *options]) == 0
    return (current_mix(mix) / "report.html").read_text()


def data_of(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def samples_of(data: Any) -> list[dict[str, Any]]:
    return [dict(zip(data["sample_columns"], row, strict=True)) for row in data["samples"]]


def test_the_numbers_are_those_of_the_mix(built: Path) -> None:
    with Path("mix.toml").open("a") as file:
        file.write("[mix.select]\nmax_samples = {demo_clipart = 20}\n[mix.select.eval]\nnum_samples = 2\n")
    assert prep(["build-mix", "mix.toml"]) == 0
    version = current_mix(MIX)
    data, manifest = data_of(page_of()), read_manifest(version)
    rows = pq.read_table(version / "selection.parquet").to_pylist()
    for dataset, shown in zip(manifest.datasets, data["datasets"], strict=True):
        of_dataset = [row for row in rows if row["dataset"] == dataset.name]
        used = [row for row in of_dataset if row["selected"] and row["split"] == "train"]
        assert shown["num_selected"] == len(used) == dataset.num_selected
        assert shown["tokens"] == sum(row["total_tokens"] for row in used)
        assert shown["supervised_tokens"] == sum(row["supervised_tokens"] for row in used)
        assert shown["num_eval"] == 2
        assert shown["num_left_out"] == sum(not row["selected"] for row in of_dataset)
        assert shown["share_of_num_draws"] == dataset.num_draws / manifest.epoch_samples
        spread = next(one for one in data["distributions"] if one["measure"] == "tokens")
        mine = next(one for one in spread["datasets"] if one["name"] == dataset.name)
        tokens = [row["total_tokens"] for row in used]
        assert mine["number"] == sum(mine["counts"]) == len(used)
        assert (mine["quantiles"][0], mine["quantiles"][-1]) == (min(tokens), max(tokens))
        bins = zip(spread["edges"], spread["edges"][1:], strict=False)
        assert mine["counts"] == [sum(low <= one < high for one in tokens) for low, high in bins]
    (door,) = [one for one in data["doors"] if one["dataset"] == "demo_clipart"]
    assert (door["reason"], door["num_samples"]) == ("over_max_samples", 15)
    assert sum(one["share_of_epoch_tokens"] for one in data["datasets"]) == pytest.approx(1)


def test_every_sample_of_a_small_mix_is_there_with_words_and_picture(built: Path) -> None:
    data = data_of(page_of())
    shown = {(one["dataset"], one["id"]): one for one in samples_of(data)}
    assert len(shown) == data["num_samples"] == 68
    for source in ("demo_photos", "demo_video"):
        lines = (Path(__file__).parents[1] / "demo_data" / "jsonl" / f"{source}.jsonl").read_text().splitlines()
        for number, line in enumerate(lines):
            one = shown[source, f"{source}.jsonl#{number:09d}"]
            answer = json.loads(line)["messages"][-1]["content"]
            words = [answer] if isinstance(answer, str) else [item["text"] for item in answer if "text" in item]
            assert [part for part in one["turns"][-1][1:] if isinstance(part, str)] == words
            assert [type(medium["thumbnail"]) for medium in one["media"]] == [int] * (
                one["num_images"] + one["num_videos"]
            )
    assert all(url.startswith("data:image/jpeg;base64,/9j/") for url in data["thumbnails"])


def test_the_same_mix_gives_the_same_bytes_and_nothing_of_this_machine(built: Path) -> None:
    first = page_of()
    assert page_of() == first
    assert str(built) not in first
    options = ["--samples", "20", "--thumbnails", "3"]
    assert page_of(*options) == page_of(*options) != first


def test_the_page_is_bounded_and_the_choice_is_by_seed(built: Path) -> None:
    few = data_of(page_of("--samples", "20", "--thumbnails", "3"))
    assert (len(few["samples"]), len(few["thumbnails"])) == (20, 3)
    assert {one["dataset"] for one in samples_of(few)} == {"demo_clipart", "demo_photos", "demo_video"}
    small = page_of("--max-mb", "0")
    assert data_of(small)["samples"] == [] and len(small) < 60_000
    assert prep(["build-mix", "mix.toml", "--set", "mix.seed=5", "--set", "mix.name=other"]) == 0
    other = data_of(page_of("--samples", "20", mix=Path("mixes/other")))
    assert {one["id"] for one in samples_of(other)} != {one["id"] for one in samples_of(few)}


def test_texts_that_grow_by_escaping_stay_within_the_bound(built: Path) -> None:
    line = json.dumps({"messages": [{"role": "user", "content": 1900 * "<"}, {"role": "assistant", "content": "x"}]})
    Path("own.jsonl").write_text(200 * f"{line}\n")
    with Path("mix.toml").open("a") as file:
        file.write("[[mix.source]]\nname = 'own'\npath = 'own.jsonl'\n")
    assert prep(["build-mix", "mix.toml", "--set", "policy.model_max_length=8192"]) == 0
    page = page_of("--max-mb", "1", "--thumbnails", "0")
    assert len(page) < 1_000_000
    assert 20 < len(data_of(page)["samples"]) < 100


def test_the_examples_of_the_audit_are_shown_first(built: Path) -> None:
    Path("queries").mkdir()
    head = "-- title: One\n-- severity: W\n-- advice: Look.\n"
    query = "select dataset, sample_id from samples where sample_id like '%#000000013'\n"
    Path("queries/one.sql").write_text(head + query)
    assert prep(["audit", str(MIX), "--queries", "queries"]) in (0, 3)
    data = data_of(page_of("--samples", "3"))
    rows = {one["name"]: one["rows"] for one in data["findings"]}
    assert len(rows["one"]) == 3
    named = {(row["dataset"], row["sample_id"]) for of_query in rows.values() for row in of_query if "sample_id" in row}
    shown = {(one["dataset"], one["id"]) for one in samples_of(data)}
    assert len(shown) == 3 and shown <= named


def test_what_cannot_be_decoded_has_no_thumbnail_and_is_counted(
    built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shard,) = Path("shards").glob("demo_photos/*/parts/*/shard.00000.mds")
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    data = data_of(page_of())
    assert "17 media have no thumbnail" in capsys.readouterr().err
    photos = [one for one in samples_of(data) if one["dataset"] == "demo_photos"]
    assert len(photos) == 17 and not any("thumbnail" in one["media"][0] for one in photos)


def test_a_small_mix_gets_audit_and_report_at_the_build(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    version = current_mix(MIX)
    assert prep(["build-mix", "mix.toml", "--set", "mix.audit.at_build=never"]) == 0
    assert not (version / "audit.json").exists() and not (version / "report.html").exists()
    capsys.readouterr()
    assert prep(["build-mix", "mix.toml"]) == 0
    said = capsys.readouterr()
    assert said.out.endswith(f"mix: {version}\n")
    assert f"report: {version / 'report.html'}" in said.err
    findings = json.loads((version / "audit.json").read_text())["findings"]
    assert data_of((version / "report.html").read_text())["findings"] == [
        {**one, "rows": [dict(zip(one["columns"], row, strict=True)) for row in one["rows"]]} for one in findings
    ]
    assert prep(["verify", str(MIX)]) == 0


def test_a_large_mix_says_which_commands_to_run(
    built: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlm_catalogs.config.audit_section import AuditSection

    monkeypatch.setattr("vlm_prep.after_build.SMALL_MIX", 67)
    version = current_mix(MIX)
    audit_and_report(version, AuditSection())
    assert f"vlm-prep audit {version} and vlm-prep report {version}" in capsys.readouterr().err
    assert not (version / "report.html").exists()
    audit_and_report(version, AuditSection(at_build="always"))
    assert (version / "report.html").is_file()


def test_a_build_audits_a_mix_once_and_again_when_other_questions_are_asked(
    built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    version = current_mix(MIX)
    assert prep(["build-mix", "mix.toml"]) == 0
    assert "audit: " in capsys.readouterr().err
    page, audit = version / "report.html", version / "audit.json"
    before = page.stat().st_mtime_ns, audit.stat().st_mtime_ns
    assert prep(["build-mix", "mix.toml"]) == 0
    assert f"audit and report: as before, {audit} and {page}" in capsys.readouterr().err
    assert (page.stat().st_mtime_ns, audit.stat().st_mtime_ns) == before
    Path("mix.toml").write_text(
        Path("mix.toml").read_text() + "[mix.audit.thresholds]\ntiny_media = {least_side = 20}\n"
    )
    assert prep(["build-mix", "mix.toml"]) == 0
    assert "as before" not in capsys.readouterr().err
    assert audit.stat().st_mtime_ns > before[1]


def test_an_audit_renews_the_page_that_is_there(built: Path, tmp_path: Path) -> None:
    version = current_mix(MIX)
    prep(["audit", str(MIX)])
    assert not (version / "report.html").exists()
    assert prep(["report", str(MIX)]) == 0
    written = (version / "report.html").stat().st_mtime_ns
    prep(["audit", str(MIX)])
    assert (version / "report.html").stat().st_mtime_ns == written
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "every_sample.sql").write_text(
        "-- title: my own question\n-- severity: I\n-- advice: none\nselect dataset, sample_id from audited\n"
    )
    prep(["audit", str(MIX), "--queries", str(tmp_path / "mine")])
    assert "my own question" in (version / "report.html").read_text()


def test_a_report_that_cannot_be_written_loses_no_mix(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    version = current_mix(MIX)
    (version / "report.html").mkdir()
    assert prep(["build-mix", "mix.toml"]) == 0
    said = capsys.readouterr()
    assert "the mix is built, but not its audit and report:" in said.err and "report.html" in said.err
    assert said.out.endswith(f"mix: {version}\n")
    assert not list(MIX.glob(".staging/*"))


def test_damaged_findings_and_wrong_paths_are_explained(
    built: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for text in ("{", '{"format": "vlm-mix audit", "version": 1, "findings": [{"name": "x"}]}', '{"format": "other"}'):
        (current_mix(MIX) / "audit.json").write_text(text)
        assert prep(["report", str(MIX)]) == 2
        assert "audit.json" in capsys.readouterr().err
    (current_mix(MIX) / "audit.json").unlink()
    assert prep(["report", "shards"]) == 2
    assert "name a mix" in capsys.readouterr().err
    target = tmp_path / "page.html"
    assert prep(["report", str(MIX), "--output", str(target)]) == 0
    assert not (tmp_path / ".staging").exists()
    assert prep(["report", str(MIX), "--output", str(target)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_no_text_ends_the_data_of_a_page() -> None:
    hostile = "</script><script>alert(1)</script><!--\u2028\u2029&lt;"
    page = page_html(hostile, {"text": hostile}, scripts=["draw();"])
    assert page.count("</script>") == 2 and "<!--" not in page and "\u2028" not in page.partition("<style>")[2]
    assert data_of(page) == {"text": hostile}
    assert "<title>&lt;/script&gt;" in page
