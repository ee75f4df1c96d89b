"""``vlm-train inspect``: one sample as the model gets it, and what the mix says about labels; no weights, no torch."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vlm_catalogs import json_text
from vlm_catalogs.config import Config
from vlm_catalogs.console import result
from vlm_catalogs.errors import ConfigError
from vlm_catalogs.layout import shard_name
from vlm_catalogs.render import Renderer
from vlm_catalogs.render.rendered import IGNORED, Rendered
from vlm_catalogs.sample import Sample
from vlm_catalogs.shard_reader import ShardReader
from vlm_train.open_mix import OpenMix, load_renderers, open_mix

ZERO_LABELS = "no_supervised_tokens"
NUM_SHOWN = 10
BEGIN, END = "«", "»"
"""Round supervised text where there is no colour."""


def inspect_config(config: Config, *, sample: str | None, as_json: bool) -> int:
    """Print a sample of the mix of ``config`` (None: the first selected one); the exit code.

    Raises ConfigError when there is no such sample, DataError when the mix or its shard is damaged.
    """
    mix = open_mix(config)
    selection = mix.selection()
    row = find_row(selection, sample)
    found = read_row(mix, row)
    renderer = load_renderers(config, mix)[row["dataset"]]
    rendered = renderer.render(found.conversation(0), found.media_table)
    if as_json:
        result(json_text.dumps({**_as_json(row, rendered, renderer), "mix": asdict(label_facts(selection))}))
    else:
        result("\n".join([*_sample_lines(row, rendered, renderer), "", *_mix_lines(label_facts(selection))]))
    return 0


def find_row(selection: pa.Table, sample: str | None) -> dict[str, Any]:
    """The row of ``dataset/sample_id`` or of a sample_id alone."""
    if sample is None:
        chosen = selection.filter(selection["selected"])
    else:
        whole = pc.binary_join_element_wise(selection["dataset"], selection["sample_id"], "/")
        chosen = selection.filter(pc.or_(pc.equal(whole, sample), pc.equal(selection["sample_id"], sample)))
    if chosen.num_rows == 0:
        raise ConfigError(
            f"--sample {sample}: no sample of this mix has that id; see vlm-prep sql or selection.parquet"
        )
    if sample is not None and chosen.num_rows > 1:
        names = ", ".join(f"{one}/{sample}" for one in chosen["dataset"].to_pylist())
        raise ConfigError(f"--sample {sample}: several datasets have it; say which: {names}")
    return dict(chosen.slice(0, 1).to_pylist()[0])


def read_row(mix: OpenMix, row: dict[str, Any]) -> Sample:
    """The sample of a row of the selection. Raises DataError or StorageError."""
    with mix.copies.fetched(mix.part(row["dataset"], row["part"]) / shard_name(row["shard"])) as shard:
        return ShardReader(shard).read(row["index_in_shard"])


def _as_json(row: dict[str, Any], rendered: Rendered, renderer: Renderer) -> dict[str, Any]:
    turns = [
        {
            **asdict(span),
            "text": renderer.decode(rendered.input_ids_T[span.begin : span.end].tolist()),
            "supervised": renderer.decode(rendered.input_ids_T[span.supervised_begin : span.supervised_end].tolist()),
        }
        for span in rendered.spans
    ]
    return {
        **{name: row[name] for name in ("dataset", "sample_id", "selected", "reason", "num_alternatives")},
        "total_tokens": rendered.total_tokens,
        "supervised_tokens": rendered.supervised_tokens,
        "text_tokens": rendered.text_tokens,
        "image_tokens": rendered.image_tokens,
        "video_tokens": rendered.video_tokens,
        "vision_patches": rendered.vision_patches,
        "media": [asdict(plan) for plan in rendered.media],
        "turns": turns,
    }


def _sample_lines(row: dict[str, Any], rendered: Rendered, renderer: Renderer) -> list[str]:
    state = "selected" if row["selected"] else f"not selected: {row['reason']}"
    share = rendered.supervised_tokens / max(1, rendered.total_tokens)
    lines = [
        f"{row['dataset']}/{row['sample_id']} ({state}; {row['num_alternatives']} conversations, the first is shown)",
        f"{rendered.total_tokens:,} tokens: {rendered.text_tokens:,} of text, {rendered.image_tokens:,} of images, "
        f"{rendered.video_tokens:,} of videos; {rendered.supervised_tokens:,} supervised ({share:.1%})",
    ]
    for plan in rendered.media:
        frames = f"{len(plan.frame_indices)} frames of " if plan.frame_indices else ""
        lines.append(
            f"  {plan.name}: {frames}{plan.width} x {plan.height} pixels, grid {plan.grid}, {plan.num_tokens:,} tokens"
        )
    for span in rendered.spans:
        begin, end = span.supervised_begin, span.supervised_end
        part = f"supervised {begin:,} to {end:,}" if end > begin else "not supervised"
        lines.append(f"  {span.role}: tokens {span.begin:,} to {span.end:,}, {part}")
    return [*lines, "", coloured_text(rendered, renderer, has_colour=sys.stdout.isatty())]


def coloured_text(rendered: Rendered, renderer: Renderer, *, has_colour: bool) -> str:
    """The whole text, runs of one placeholder shortened, supervised runs in green or between « and »."""
    begin, end = ("\x1b[32m", "\x1b[0m") if has_colour else (BEGIN, END)
    pieces = []
    for ids, is_supervised in _runs(rendered.input_ids_T.tolist(), (rendered.labels_T != IGNORED).tolist()):
        text = renderer.decode(shortened(ids))
        pieces.append(f"{begin}{text}{end}" if is_supervised else text)
    return "".join(pieces)


def _runs(ids: Sequence[int], flags: Sequence[bool]) -> list[tuple[list[int], bool]]:
    runs: list[tuple[list[int], bool]] = []
    for token, flag in zip(ids, flags, strict=True):
        if not runs or runs[-1][1] != flag:
            runs.append(([], flag))
        runs[-1][0].append(token)
    return runs


def shortened(ids: Sequence[int]) -> list[int]:
    """At most three of one token in a row: a medium is hundreds of the same placeholder."""
    short: list[int] = []
    for token in ids:
        if short[-3:] != [token] * 3:
            short.append(token)
    return short


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFacts:
    """What a selection says about labels."""

    samples: int
    """Selected."""
    tokens: int
    supervised_tokens: int
    without_labels: tuple[str, ...]
    """``dataset/sample_id`` of every sample that has no supervised token, and so is left out."""


def label_facts(selection: pa.Table) -> LabelFacts:
    """The supervised tokens of what is selected, and the samples that have none."""
    chosen = selection.filter(selection["selected"])
    total, supervised = (pc.sum(chosen[name]).as_py() or 0 for name in ("total_tokens", "supervised_tokens"))
    unlabelled = selection.filter(pc.equal(selection["reason"], ZERO_LABELS)).select(["dataset", "sample_id"])
    names = tuple(f"{one['dataset']}/{one['sample_id']}" for one in unlabelled.to_pylist())
    return LabelFacts(samples=chosen.num_rows, tokens=total, supervised_tokens=supervised, without_labels=names)


def _mix_lines(facts: LabelFacts) -> list[str]:
    share = facts.supervised_tokens / max(1, facts.tokens)
    lines = [f"the mix: {facts.samples:,} samples selected, {facts.tokens:,} tokens, {share:.1%} of them supervised"]
    if facts.without_labels:
        lines.append(f"{len(facts.without_labels):,} samples have no supervised token and are left out:")
        lines += [f"  {name}" for name in facts.without_labels[:NUM_SHOWN]]
        more = len(facts.without_labels) - NUM_SHOWN
        lines += [f"  and {more:,} more: --json lists all"] if more > 0 else []
    return lines
