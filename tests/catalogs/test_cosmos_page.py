"""docs/cosmos_rl.md is what the code says of every key; `python -m tests.catalogs.test_cosmos_page` writes it anew."""

import ast
from pathlib import Path

from vlm_catalogs.config import sections
from vlm_catalogs.config.fates import MEANINGLESS, NOT_BUILT, PERFORMANCE
from vlm_catalogs.config.loader import all_keys, field_types, section_of
from vlm_catalogs.config.rules import PART_OF_VALIDATION

PAGE = Path(__file__).parents[2] / "docs" / "cosmos_rl.md"
OURS = ("mix.", "stream.")
ONLY_DEFAULT = "only its default is built; anything else is refused"
RULED = {
    f"train.train_policy.{name}": ONLY_DEFAULT
    for name in (
        *(f"dataset.{one}" for one in ("subset", "revision", "local_dir", "split")),
        "conversation_column_name",
    )
} | {
    f"validation.dataset.{name}": f"noted where validation.dataset.name is not read, else refused: {advice}"
    for name, advice in PART_OF_VALIDATION.items()
}
"""Keys that config/rules.py refuses by value."""
HEAD = """# For people who come from cosmos-rl

The same TOML runs: `vlm-prep build-mix config.toml`, then `vlm-train run config.toml`, without server, controller or
launcher. What differs in the large:

- Data is converted once (`build-mix`); mix, order and steps are written down before they train. A resumed run goes on
  with the very next batch.
- The loss is a mean over the supervised tokens of the whole step; only assistant turns are supervised.
- Weights share out samples exactly (`[mix] weight_unit` for tokens or repeats); nothing is drawn by chance.
- An unknown key is an error with its line, a key that means nothing here is named in one note, and a value that would
  change results and is not built is refused.
- `dataloader_drop_last` is false unless set: a short last step is filled with rows that count for nothing.

This page is written from the code (a test compares them).
"""


def docstrings() -> dict[tuple[str, str], str]:
    """(class, field) -> the text under the field."""
    found = {}
    files = sorted(Path(sections.__file__).parent.glob("*section*.py"))
    for node in (node for file in files for node in ast.parse(file.read_text()).body):
        if not isinstance(node, ast.ClassDef):
            continue
        for field, text in zip(node.body, node.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                found[node.name, field.target.id] = " ".join(str(text.value.value).split())
    return found


def meaning(key: str, texts: dict[tuple[str, str], str]) -> str:
    section: type = sections.Config
    *path, name = key.split(".")
    for step in path:
        inner = section_of(field_types(section)[step])
        assert inner is not None
        section = inner
    return RULED.get(key) or texts.get((section.__name__, name), "as in cosmos-rl")


def table(rows: list[tuple[str, str]], *, head: str) -> list[str]:
    escaped = [(key, text.replace("|", "\\|")) for key, text in rows]
    return [f"| key | {head} |", "|---|---|", *(f"| `{key}` | {text} |" for key, text in escaped), ""]


def cosmos_page() -> str:
    texts = docstrings()
    fates = {key: fate for key, fate in {**PERFORMANCE, **NOT_BUILT}.items() if not key.startswith(OURS)}
    without = {key: fate for key, fate in MEANINGLESS.items() if key not in fates}
    honoured = [key for key in all_keys() if not key.startswith(OURS) and key not in {**fates, **MEANINGLESS}]
    lines = [HEAD, "## Honoured", ""]
    lines += table([(key, meaning(key, texts)) for key in honoured], head="meaning here")
    lines += ["## Noted or refused, by value", ""]
    lines += table([(key, fate.advice) for key, fate in sorted(fates.items())], head="what is said")
    lines += ["## Without meaning here: one note", ""]
    lines += table([(key, fate.advice) for key, fate in sorted(without.items())], head="why")
    return "\n".join(lines)


def test_the_page_says_what_the_code_says() -> None:
    assert PAGE.read_text() == cosmos_page(), "run: python -m tests.catalogs.test_cosmos_page"


def test_every_key_stands_on_the_page_once() -> None:
    keys = [line.split("`")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert len(keys) == len(set(keys))
    wanted = {key for key in all_keys() if not key.startswith(OURS)} | set(MEANINGLESS) | set(PERFORMANCE)
    assert wanted <= set(keys)


if __name__ == "__main__":
    PAGE.write_text(cosmos_page())
