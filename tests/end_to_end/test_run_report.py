"""``vlm-train report`` in a real browser: charts, figures, pictures of the worst samples; hostile words do nothing.

A screenshot is kept in test-artifacts/ for people to look at.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page
from tests.browser import headless_browser
from tests.small_mixes import DEMO, model_and_mix, source, write_conversations, write_demo

from vlm_prep.cli import main as prep
from vlm_train.cli import main as train
from vlm_train.explain import steps_of_run
from vlm_train.make_tiny import make_tiny
from vlm_train.report_numbers import MOST_POINTS, curves
from vlm_train.worst_samples import worst_samples

ARTIFACTS = Path(__file__).parents[2] / "test-artifacts"
HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> {{7*7}} \u2028 &lt;b&gt;"
NAME = "<img src=x onerror='window.hacked = 1'>"
TOML = """
[custom]
n_step_per_workload_report = 2

[train]
max_num_steps = 4
epoch = 99
train_batch_per_replica = 4
optm_lr = 3e-3
optm_warmup_steps = 1
param_dtype = "float32"
output_dir = "{folder}/run"

[train.train_policy]
mini_batch = 2

[train.ckpt]
export_safetensors = false

[logging]
report_mfu = true
peak_tflops = 0.01

[validation]
enable = true
freq = 2
val_before_train = true

[mix.select.eval]
num_samples = 2
datasets = ["pictures"]
"""
TOML += model_and_mix(1024, model_gradient_checkpointing=False)
TOML += source("pictures", "{folder}/pictures.jsonl", media_root="{demo}", weight=3.0)
TOML += source("{name}", "{folder}/words.jsonl", weight=1.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps of a model with experts over pictures and hostile words, with a bad step that was written down."""
    folder = tmp_path_factory.mktemp("report")
    make_tiny("qwen3_vl_moe", folder / "model")
    write_demo(folder / "pictures.jsonl", demo_clipart=8)
    write_conversations(folder / "words.jsonl", [(f"{number} {HOSTILE}", HOSTILE) for number in range(3)])
    (folder / "small.toml").write_text(TOML.format(folder=folder, demo=DEMO, name=NAME))
    assert prep(["build-mix", str(folder / "small.toml")]) == 0
    assert train(["run", str(folder / "small.toml")]) == 0
    bad = {"step": 4, "reason": HOSTILE, "action": "skipped", "loss": float("nan"), "grad_norm": 2.5, "attempt": 1}
    bad["samples"] = [{"dataset": NAME, "sample_id": "words.jsonl#000000001"}]
    (folder / "run" / "bad_steps.jsonl").write_text(json.dumps(bad) + "\n")
    assert train(["report", str(folder / "run"), "--samples", "8"]) == 0
    return folder / "run"


def label(page: Page, curve: str) -> str:
    return page.locator(f'[data-curve="{curve}"] svg').get_attribute("aria-label") or ""


def shown(value: float) -> str:
    return f"{value:.3g}"


def test_the_page_shows_the_run_and_runs_nothing_of_its_data(run: Path) -> None:
    lines = steps_of_run(run)
    done: list[str] = []
    own = f"file://{run / 'report.html'}"
    with headless_browser() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.on("console", lambda said: done.append(said.text))
        page.on("pageerror", lambda error: done.append(str(error)))
        page.on("request", lambda asked: asked.url == own or asked.url.startswith("data:") or done.append(asked.url))
        page.goto(own)
        check_curves(page, lines)
        check_datasets(page, lines)
        assert page.locator("#bad-steps tbody tr").count() == 1
        row = page.locator("#bad-steps tbody tr").inner_text()
        assert row.startswith("4") and "nan" in row and HOSTILE.split(" ")[0] in row and f"{NAME}/words" in row
        cards = page.locator("article.sample")
        names = [cards.nth(number).get_attribute("data-sample") or "" for number in range(cards.count())]
        assert len(names) == len(set(names)) == 8
        assert {name.partition("/")[0] for name in names} == {"pictures", "<img src=x onerror='window.hacked = 1'>"}
        assert "window.hacked = 1</script><img src=x" in page.locator("article", has_text="{{7*7}}").first.inner_text()
        assert "Step " in cards.first.inner_text() and "whose loss was" in cards.first.inner_text()
        sizes = page.evaluate("[...document.images].map((image) => image.naturalWidth * image.naturalHeight)")
        assert len(sizes) == sum(name.startswith("pictures/") for name in names) and min(sizes) > 1000
        assert page.evaluate("window.hacked") is None
        assert page.locator("script").count() == 2
        ARTIFACTS.mkdir(exist_ok=True)
        page.screenshot(path=ARTIFACTS / "run_report.png", full_page=True)
        page.emulate_media(color_scheme="dark")
        page.set_viewport_size({"width": 420, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert done == []


def check_curves(page: Page, lines: list[dict[str, Any]]) -> None:
    """Every curve has the points of the metrics, and reads them by keyboard."""
    keys = [one.get_attribute("data-curve") for one in page.locator("[data-curve]").all()]
    assert keys[:3] == ["train/loss", "train/lr", "train/grad_norm"]
    assert {"train/useful_tokens_per_second", "train/padding_share", "data/wait_seconds"} <= set(keys)
    assert {"moe/entropy_mean", "moe/largest_share_max", "moe/dead_experts"} <= set(keys)
    assert {"validation/loss", "validation/loss/pictures"} <= set(keys)
    assert "train/mfu" in keys and all(0 < line["train/mfu"] < 1 for line in lines)
    assert "seconds_left" in "".join(lines[-1]) and lines[-1]["train/seconds_left"] == 0
    losses = [line["train/loss"] for line in lines]
    assert label(page, "train/loss") == f"Loss: {shown(losses[0])} at 1, {shown(losses[-1])} at 4"
    points = {key: page.locator(f'[data-curve="{key}"] svg').get_attribute("data-points") for key in keys if key}
    assert (points["train/loss"], points["validation/loss"], points["moe/entropy_mean"]) == ("4", "3", "2")
    page.locator('[data-curve="train/loss"] svg').focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert page.locator('[data-curve="train/loss"] output').inner_text() == f"2: {shown(losses[1])}"
    path = page.locator('[data-curve="train/loss"] path.line').get_attribute("d") or ""
    assert path.count("L") == 3 and "NaN" not in path
    tiles = page.locator(".tile").all_inner_texts()
    assert tiles[0] == "4\nsteps" and tiles[1].startswith(f"{losses[-1]:.4f}\n") and tiles[-1] == "1\nbad step"


def check_datasets(page: Page, lines: list[dict[str, Any]]) -> None:
    rows = page.locator("#datasets tbody tr").all_inner_texts()
    assert len(rows) == 2
    for row, name, asked in zip(rows, ("pictures", NAME), ("75.00 %", "25.00 %"), strict=True):
        samples = sum(line.get(f"samples/{name}", 0) for line in lines)
        share = samples / sum(line.get(f"samples/{one}", 0) for line in lines for one in ("pictures", NAME))
        assert name in row and asked in row and f"{100 * share:.2f} %" in row
        last = [line[f"loss/{name}"] for line in lines if f"loss/{name}" in line][-1]
        assert f"{last:.4f}" in row
    assert page.locator("#datasets svg.sparkline").count() == 2
    assert page.locator("#datasets svg.share .asked").count() == 2


def test_the_worst_samples_are_those_furthest_above_their_step(run: Path) -> None:
    import pyarrow.parquet as pq

    lines = steps_of_run(run)
    losses = {(one["epoch"], one["epoch_step"]): one["train/loss"] for one in lines}
    (path,) = (run / "sample_loss").glob("rank-*/part-*.parquet")
    rows = pq.read_table(path).to_pylist()
    excess: dict[int, float] = {}
    for row in rows:
        over = row["loss_sum"] / row["supervised_tokens"] - losses[row["epoch"], row["step"]]
        excess[row["sample_key"]] = max(excess.get(row["sample_key"], over), over)
    wanted = sorted(excess, key=lambda key: -excess[key])[:5]
    by_place = {(row["epoch"], row["step"], row["row"], row["position"]): row["sample_key"] for row in rows}
    found = worst_samples(run, lines, most=5)
    assert [by_place[one.line["epoch"], one.line["epoch_step"], one.row, one.position] for one in found] == wanted
    assert worst_samples(run, lines, most=0) == []


def test_long_runs_are_thinned_with_their_extremes() -> None:
    steps = [{"step": number, "train/loss": 100.0 if number == 777 else 1.0} for number in range(1, 10_001)]
    (curve,) = curves(steps)
    assert len(curve["points"]) <= MOST_POINTS and curve["points"][-1][0] == 10_000
    assert max(point[3] for point in curve["points"]) == 100.0


def test_a_file_of_others_stays_and_a_folder_that_is_no_run_is_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    page.write_text("mine")
    assert train(["report", str(run), "--output", str(page)]) == 2
    assert "exists already" in capsys.readouterr().err and page.read_text() == "mine"
    assert train(["report", str(tmp_path)]) == 2
    assert "is it the output_dir of a run?" in capsys.readouterr().err
