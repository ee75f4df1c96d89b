"""The page of a mix in a real browser: filters, an opened sample, keyboard, light and dark; hostile texts do nothing.

Screenshots are kept in test-artifacts/ for people to look at.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser, Page, expect
from tests.browser import headless_browser

from vlm_catalogs.manifest import current_mix
from vlm_prep.cli import main as prep

ARTIFACTS = Path(__file__).parents[2] / "test-artifacts"
HOSTILE = (
    "<script>window.hacked = 1; alert(1)</script>",
    "</script><script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked = 1; alert(2)">\'',
    "<svg onload=window.hacked=1><!-- <script> ]]> {{7*7}} ${alert(3)} `",
    "line\u2028separator\u2029and \\u003c/script\\u003e &lt;b&gt; &amp; \u202eright to left",
    "javascript:window.hacked=1",
)
NAME = "<b onmouseover=alert(4)>\"'&"
"""A dataset may be called that."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with headless_browser() as started:
        yield started


@dataclass
class Opened:
    """A page that is open, and all that it did which it must not do."""

    page: Page
    done: list[str] = field(default_factory=list)


OpenPage = Callable[..., Opened]


@pytest.fixture
def opened(browser: Browser) -> Iterator[OpenPage]:
    pages: list[Opened] = []

    def open_page(path: Path, *, scheme: Literal["light", "dark"] = "light") -> Opened:
        context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme, bypass_csp=False)
        one = Opened(context.new_page())
        own = f"file://{path.resolve()}"
        one.page.on("console", lambda said: one.done.append(f"console: {said.text}"))
        one.page.on("pageerror", lambda error: one.done.append(f"error: {error}"))
        one.page.on("request", lambda asked: asked.url == own or one.done.append(f"request: {asked.url[:200]}"))
        one.page.on("dialog", lambda dialog: (one.done.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        one.page.goto(own)
        pages.append(one)
        return one

    yield open_page
    assert [one.done for one in pages] == [[] for _ in pages]
    for one in pages:
        one.page.context.close()


def report_of(name: str = "mix", *options: str) -> Path:
    assert prep(["report", f"mixes/{name}", *options]) == 0
    return current_mix(Path("mixes") / name) / "report.html"


def tokens_of_videos() -> list[int]:
    """The lengths of the five samples with a video, as the mix has them."""
    (samples,) = Path("shards").glob("demo_video/*/parts/*/samples.parquet")
    keys = [row["sample_key"] for row in pq.read_table(samples).to_pylist() if row["num_videos"]]
    rows = pq.read_table(current_mix(Path("mixes/mix")) / "selection.parquet").to_pylist()
    return sorted(row["total_tokens"] for row in rows if row["sample_key"] in keys)


def shown_names(page: Page) -> list[str]:
    return page.locator(".item .name").all_inner_texts()


def test_the_page_filters_by_dataset_and_opens_a_sample(built: Path, opened: OpenPage) -> None:
    assert prep(["build-mix", "mix.toml"]) == 0
    page = opened(current_mix(Path("mixes/mix")) / "report.html").page
    expect(page.get_by_role("heading", level=1)).to_have_text("mix")
    expect(page.locator(".tile").first).to_have_text("68samples an epoch")
    shares = page.locator("#mix tbody tr")
    assert [row.split("\t")[0] for row in shares.all_inner_texts()] == ["demo_clipart", "demo_photos", "demo_video"]
    assert "33.82 %\t33.33 %" in shares.first.inner_text(), "23 of 68 draws, a third was asked for"
    expect(page.locator("#findings")).to_contain_text("checks of the audit")

    expect(page.locator(".count")).to_have_text("68 samples")
    page.get_by_label("Dataset", exact=True).select_option("demo_photos")
    expect(page.locator(".count")).to_have_text("17 of 68 samples")
    assert all(name.startswith("demo_photos / ") for name in shown_names(page)) and len(shown_names(page)) > 8
    page.get_by_label("Search", exact=True).fill("astronaut suit")
    expect(page.locator(".count")).to_have_text("1 of 68 samples")
    page.locator(".item").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading")).to_have_text(re.compile(r"demo_photos / demo_photos\.jsonl#\d{9}"))
    expect(dialog).to_contain_text("A smiling astronaut in an orange space suit, her helmet beside her.")
    expect(dialog).to_contain_text("84, of them 49 supervised")
    size = dialog.locator("img").evaluate("image => [image.naturalWidth, image.naturalHeight, image.complete]")
    assert size == [192, 192, True]
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).not_to_be_visible()
    page.get_by_role("button", name="Clear").click()
    page.get_by_label("Media", exact=True).select_option("video")
    expect(page.locator(".count")).to_have_text("5 of 68 samples")
    tokens = tokens_of_videos()
    page.get_by_label("Least tokens").fill(str(tokens[2]))
    page.get_by_label("Most tokens").fill(str(tokens[3]))
    expect(page.locator(".count")).to_have_text(f"{sum(tokens[2] <= one <= tokens[3] for one in tokens)} of 68 samples")
    page.get_by_label("Search", exact=True).fill("no such words")
    expect(page.locator(".list")).to_have_text("No sample is like this.")


def test_the_keyboard_alone_is_enough(built: Path, opened: OpenPage) -> None:
    page = opened(report_of()).page
    page.keyboard.press("/")
    page.keyboard.type("demo_photos")
    page.keyboard.press("Enter")
    expect(page.locator(".count")).to_have_text("17 of 68 samples")
    expect(page.get_by_role("listbox")).to_be_focused()
    names = shown_names(page)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    heading = page.get_by_role("dialog").get_by_role("heading")
    expect(heading).to_have_text(names[1])
    page.keyboard.press("ArrowRight")
    expect(heading).to_have_text(names[2])
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(heading).to_have_text(names[0])
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("listbox")).to_be_focused()
    page.keyboard.press("End")
    assert page.locator(".item.active").get_attribute("aria-posinset") == "17"
    outline = page.get_by_role("listbox").evaluate("list => getComputedStyle(list).outlineStyle")
    assert outline == "solid", "what has the focus shows it"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_are_both_readable(scheme: Literal["light", "dark"], built: Path, opened: OpenPage) -> None:
    assert prep(["build-mix", "mix.toml", "--set", "policy.model_max_length=90", "--set", "mix.name=shot"]) == 0
    page = opened(current_mix(Path("mixes/shot")) / "report.html", scheme=scheme).page
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"report-{scheme}.png", full_page=True)
    page.locator(".item").first.click()
    page.screenshot(path=ARTIFACTS / f"report-{scheme}-sample.png")
    for selector in (
        "h1",
        ".about",
        ".tile span",
        "#mix td.number",
        ".item .name",
        ".item .badge",
        ".turn .words",
        ".turn .role",
    ):
        assert contrast(page, selector) >= 4.5, selector


def contrast(page: Page, selector: str) -> float:
    """Of the text against what is behind it, as WCAG 2.1 defines it."""
    colours = page.locator(selector).first.evaluate(
        """element => {
            let behind = element;
            const ground = (one) => getComputedStyle(one).backgroundColor;
            while (behind && ground(behind) === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
            return [getComputedStyle(element).color, ground(behind)];
        }"""
    )
    light, dark = sorted((luminance(colour) for colour in colours), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.fixture
def hostile(built: Path) -> Path:
    """The page of a mix whose names, texts and findings all try to run something."""
    Path("own").mkdir()
    records = [
        {
            "id": text,
            "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text[::-1] + text}],
        }
        for text in HOSTILE
    ]
    records.append({"id": HOSTILE[0], "messages": [{"role": HOSTILE[1], "content": "x"}]})
    (Path("own") / "<img src=x onerror=alert(5)>.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    Path("queries").mkdir()
    query = f"-- title: {HOSTILE[0]}\n-- severity: E\n-- advice: {HOSTILE[2]}\n"
    query += f"select dataset, sample_id, text as \"{HOSTILE[0]}\" from turns where dataset like '<b%'\n"
    Path("queries/hostile.sql").write_text(query)
    with Path("mix.toml").open("a") as file:
        file.write(f"[[mix.source]]\nname = {json.dumps(NAME)}\npath = 'own'\n[mix.audit]\nqueries = ['queries']\n")
    assert prep(["build-mix", "mix.toml"]) == 0
    return current_mix(Path("mixes/mix")) / "report.html"


def test_hostile_texts_are_shown_and_run_nothing(hostile: Path, opened: OpenPage) -> None:
    one = opened(hostile)
    page = one.page
    page.get_by_label("Dataset", exact=True).select_option(NAME)
    expect(page.locator(".count")).to_have_text("7 of 75 samples")
    page.get_by_role("listbox").focus()
    seen = []
    for number in range(7):
        page.keyboard.press("Enter" if number == 0 else "ArrowRight")
        seen += page.locator("dialog .words").all_text_contents()
        page.locator("dialog h3").hover()
    assert set(HOSTILE) <= set(seen), "each stands there letter by letter"
    page.keyboard.press("Escape")
    finding = page.locator("details.finding[data-name=hostile]")
    finding.locator("summary").click()
    expect(finding.locator("summary")).to_contain_text(HOSTILE[0])
    expect(finding).to_contain_text(HOSTILE[2])
    expect(finding.locator("tbody tr")).to_have_count(13)
    button = finding.get_by_role("button", name="Open").first
    button.click()
    expect(page.get_by_role("dialog").get_by_role("heading")).to_contain_text(NAME)
    page.keyboard.press("Escape")
    expect(button).to_be_focused()
    assert page.evaluate("window.hacked") is None
    assert page.locator("script").count() == 2, "the data and the page's own script"
    assert page.evaluate("[...document.querySelectorAll('img')].every(one => one.src.startsWith('data:image/jpeg'))")
    assert page.locator("main b[onmouseover], main svg[onload], main script").count() == 0
    assert one.done == []

    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.hacked = 1";
            document.body.append(script);
            const image = document.createElement("img");
            image.src = "http://127.0.0.1:9/x.png";
            document.body.append(image);
        }"""
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.hacked") is None, "even a script that came in would not run"
    refused = [said for said in one.done if "Content Security Policy" in said]
    assert len(refused) >= 2 and not any(said.startswith(("error", "dialog")) for said in one.done)
    one.done.clear()


def lines_of_samples(number: int) -> Iterator[str]:
    for place in range(number):
        question = f"What is {place} plus {place % 7}? " + "Think of it well. " * (place % 5)
        messages = [
            {"role": "user", "content": question},
            {"role": "assistant", "content": f"It is {place + place % 7}."},
        ]
        yield json.dumps({"messages": messages}) + "\n"


def check_many(number: int, opened: OpenPage) -> None:
    for name, share in (("even", 0.7), ("odd", 0.3)):
        Path(f"{name}.jsonl").write_text("".join(lines_of_samples(int(number * share))))
    head = Path("mix.toml").read_text().partition("[[mix.source]]")[0]
    Path("many.toml").write_text(
        head + "".join(f"[[mix.source]]\nname = '{name}'\npath = '{name}.jsonl'\n" for name in ("even", "odd"))
    )
    assert prep(["build-mix", "many.toml", "--set", "mix.audit.at_build=never"]) == 0
    usual = report_of("many")
    assert usual.stat().st_size < 20_000_000
    page = opened(usual).page
    expect(page.locator(".count")).to_have_text(f"{min(number, 2000):,} samples")

    path = report_of("many", "--samples", str(number), "--max-mb", "100")
    started = time.monotonic()
    page = opened(path).page
    expect(page.locator(".count")).to_have_text(f"{number:,} samples")
    loaded = time.monotonic() - started
    assert page.locator(".item").count() < 40, "only what can be seen is in the page"
    last = int(number * 0.3) - 1
    started = time.monotonic()
    page.get_by_label("Dataset", exact=True).select_option("odd")
    expect(page.locator(".count")).to_have_text(f"{last + 1:,} of {number:,} samples")
    page.get_by_label("Search", exact=True).fill(f"odd.jsonl#{last:09d}")
    expect(page.locator(".count")).to_have_text(f"1 of {number:,} samples")
    filtered = time.monotonic() - started
    page.locator(".item").click()
    expect(page.get_by_role("dialog")).to_contain_text(f"It is {last + last % 7}.")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("listbox").focus()
    page.keyboard.press("End")
    assert page.locator(".item.active").get_attribute("aria-posinset") == str(number)
    print(
        f"{number:,} samples: {path.stat().st_size / 1e6:.1f} MB, shown in {loaded:.2f} s, "
        f"two filters in {filtered:.2f} s"
    )
    assert loaded < 20 and filtered < 10


def test_a_page_of_many_samples_lists_what_is_seen(built: Path, opened: OpenPage) -> None:
    check_many(1_900, opened)


@pytest.mark.slow
def test_a_page_of_50_000_samples_stays_quick(built: Path, opened: OpenPage) -> None:
    check_many(50_000, opened)
