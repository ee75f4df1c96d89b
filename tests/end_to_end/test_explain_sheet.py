"""``vlm-train explain --html`` in a real browser: pictures, words, losses, lineage; hostile words do nothing."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from tests.browser import headless_browser
from tests.end_to_end.test_explain import TOML, explained
from tests.small_mixes import DEMO, demo_lines

from vlm_prep.cli import main as prep
from vlm_train.cli import main as train
from vlm_train.explain import explain_step, steps_of_run
from vlm_train.explain_sheet import write_sheet
from vlm_train.make_tiny import make_tiny
from vlm_train.open_mix import open_mix
from vlm_train.sample_store import SampleStore

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> {{7*7}} \u2028 &lt;b&gt;"
PIXELS = "[...document.images].map((image) => image.naturalWidth * image.naturalHeight)"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps over a picture, a film, two pictures in one sample and hostile words."""
    folder = tmp_path_factory.mktemp("sheet")
    make_tiny("qwen3_vl", folder / "model")
    words = [{"role": "user", "content": HOSTILE}, {"role": "assistant", "content": f"never {HOSTILE}"}]
    pictures = [{"type": "image", "image": f"media/clipart/{name}.png"} for name in ("apple", "bee")]
    both = [{"role": "user", "content": pictures}, {"role": "assistant", "content": "an apple and a bee"}]
    lines = [*demo_lines(demo_clipart=1, demo_video=1), *(json.dumps({"messages": one}) for one in (words, both))]
    (folder / "said.jsonl").write_text("\n".join(lines) + "\n")
    toml = TOML.format(folder=folder).replace("max_num_steps = 120", "max_num_steps = 2")
    (folder / "small.toml").write_text(f'{toml}media_root = "{DEMO}"\n[custom]\ninclude_video = true\n')
    assert prep(["build-mix", str(folder / "small.toml")]) == 0
    assert train(["run", str(folder / "small.toml")]) == 0
    return folder / "run"


def test_the_sheet_shows_every_sample_and_runs_nothing_of_theirs(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "sheet.html"
    (step,) = explained(run, capsys, "--step", "2", "--html", str(sheet))
    assert "http" not in sheet.read_text().replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    said: list[str] = []
    with headless_browser() as browser:
        page = browser.new_page()
        page.on("console", lambda one: said.append(one.text))
        page.on("pageerror", lambda one: said.append(str(one)))
        page.goto(f"file://{sheet}")
        cards = page.locator("article.sample")
        names = [cards.nth(number).get_attribute("data-sample") for number in range(cards.count())]
        assert names == [f"{one['dataset']}/{one['sample_id']}" for one in step["samples"]]
        assert len(names) == 4
        for number, one in enumerate(step["samples"]):
            text = cards.nth(number).inner_text()
            assert f"loss {one['loss']:.4f}" in text
            assert f"said.jsonl → part {one['part']}, shard {one['shard']}, sample {one['index_in_shard']}" in text
        hostile = page.locator("article", has_text="never").inner_text()
        assert "window.hacked = 1</script><img src=x" in hostile and "{{7*7}}" in hostile and "&lt;b&gt;" in hostile
        assert page.evaluate("window.hacked") is None
        sizes = page.evaluate(PIXELS)
        page.emulate_media(color_scheme="dark")
        browser_said = list(said)
    assert len(sizes) == 4 and min(sizes) > 1000  # a picture, a frame, two pictures
    assert browser_said == []
    assert train(["explain", str(run), "--step", "2", "--html", str(sheet)]) == 2
    assert "exists already; name another file" in capsys.readouterr().err


def test_a_sample_that_cannot_be_read_or_has_no_finite_loss_says_so(run: Path, tmp_path: Path) -> None:
    from vlm_catalogs.config import load_config

    mix = open_mix(load_config(run.parent / "small.toml"))
    step = explain_step(run, steps_of_run(run)[0])
    step = replace(step, samples=(replace(step.samples[0], loss=math.nan), *step.samples[1:]))
    lost = replace(mix, folder=tmp_path / "mixes" / "a" / "version")  # its shards would lie where nothing is
    write_sheet(tmp_path / "lost.html", run, [step], SampleStore(lost))
    with headless_browser() as browser:
        page = browser.new_page()
        page.goto(f"file://{tmp_path / 'lost.html'}")
        assert page.locator("article.sample p.error").count() == 4
        assert "shard.00000.mds: cannot be opened" in page.locator("article.sample p.error").first.inner_text()
        assert "loss nan" in page.locator("article.sample").first.inner_text()
