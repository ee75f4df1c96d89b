"""The difference of two mixes as text for people."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from vlm_catalogs import json_text
from vlm_catalogs.text_table import text_table
from vlm_prep.conversation_text import printable
from vlm_prep.diff import ComparedDataset, DatasetNumbers, MixDiff, SampleChange
from vlm_prep.reasons import meaning_of

MAX_SETTINGS = 40
MAX_VALUE = 60
"""Characters of a setting's value that a table for people has."""
COLUMNS: dict[str, Callable[[DatasetNumbers], str]] = {
    "asked": lambda one: f"{one.asked:.4%}",
    "realised": lambda one: f"{one.realised:.4%}",
    "draws": lambda one: f"{one.num_draws:,}",
    "selected": lambda one: f"{one.num_selected:,}",
    "selected tokens": lambda one: f"{one.selected_tokens:,}",
    "converted": lambda one: f"{one.num_converted:,}",
    "rejected": lambda one: f"{one.num_rejected:,}",
}
CHANGES = {
    "entered": "entered",
    "left": "left",
    "other_split": "changed sides",
    "other_length": "have another length",
    "other_content": "have another content",
}
OWN_REASONS = {
    "dataset_not_in_mix": "the mix does not have the dataset",
    "not_converted": "no such sample was converted",
}


def diff_text(diff: MixDiff) -> str:
    """The difference in some tables; what a terminal would obey is shown escaped."""
    lines = [f"a: {diff.a}", f"b: {diff.b}"]
    if diff.is_empty:
        return "\n".join([*lines, "no difference"])
    sections = {"settings": _settings(diff), "datasets": _datasets(diff.datasets), "samples": _samples(diff.changes)}
    for title, found in sections.items():
        lines += [f"{title}:", *(f"  {line}" for line in found)] if found else [f"{title}: the same"]
    return "\n".join(printable(line) for line in lines)


def _settings(diff: MixDiff) -> list[str]:
    rows = [[one.name, _value(one.a), _value(one.b)] for one in diff.settings]
    more = len(rows) - MAX_SETTINGS
    lines = text_table(["setting", "a", "b"], rows[:MAX_SETTINGS]).splitlines() if rows else []
    return [*lines, *([f"and {more:,} more, see --json"] if more > 0 else [])]


def _value(value: Any) -> str:
    text = "-" if value is None else value if isinstance(value, str) else json_text.dumps(value)
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}..."


def _datasets(datasets: Sequence[ComparedDataset]) -> list[str]:
    """One line for each number that differs; shares move together, so all of a changed dataset would be too many."""
    rows = [
        [one.name, name, _number(of, one.a), _number(of, one.b)]
        for one in datasets
        for name, of in COLUMNS.items()
        if _number(of, one.a) != _number(of, one.b)
    ]
    return text_table(["dataset", "", "a", "b"], rows).splitlines() if rows else []


def _number(of: Callable[[DatasetNumbers], str], numbers: DatasetNumbers | None) -> str:
    return "-" if numbers is None else of(numbers)


def _samples(changes: Sequence[SampleChange]) -> list[str]:
    return [line for change in changes for line in _change(change)]


def _change(one: SampleChange) -> Iterator[str]:
    about = f": {_reason(one)}" if one.reason else ""
    if one.tokens_a is not None and one.tokens_b is not None:
        about = f": {one.tokens_a:,} -> {one.tokens_b:,} tokens"
    yield f"{one.dataset}: {one.num_samples:,} {CHANGES[one.change]}{about}"
    yield f"  such as {', '.join(one.examples)}"


def _reason(one: SampleChange) -> str:
    reason = str(one.reason)
    if one.change in ("other_split", "other_content"):
        return reason
    meaning = OWN_REASONS.get(reason) or meaning_of(reason.removeprefix("rejected:"))
    return f"{'not in a' if one.change == 'entered' else 'not in b'}: {reason} ({meaning})"
