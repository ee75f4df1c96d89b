"""The numbers on the page of a run, out of its metrics. Pure."""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from vlm_catalogs.config import Config
from vlm_catalogs.manifest import Manifest

MOST_POINTS = 600
"""Of one curve: of more steps each point stands for several, with their least and their most."""
CURVES = {
    "train/loss": ("Loss", "mean over the supervised tokens of the step"),
    "train/lr": ("Learning rate", "the largest of any parameter"),
    "train/grad_norm": ("Gradient norm", "before clipping"),
    "train/useful_tokens_per_second": ("Useful tokens/s", "without padding, over all ranks"),
    "train/mfu": ("MFU", "share of the peak of the devices; see the README for its formula"),
    "train/padding_share": ("Padding", "share of the tokens that go through the model"),
    "data/wait_seconds": ("Waited for data", "seconds of the step"),
    "train/peak_memory_bytes": ("Peak memory", "bytes of the first rank: of its GPU, else of the process"),
    "data/fetched_bytes": ("Fetched", "bytes from the object store"),
    "moe/entropy_mean": ("Routers: entropy", "of a layer's load over its largest possible value: 1 is even"),
    "moe/largest_share_max": ("Routers: largest share", "of a layer's tokens that one expert got, in the worst layer"),
    "moe/dead_experts": ("Routers: dead experts", "over all layers, without a token since the report before"),
    "moe/aux_loss": ("Routers: auxiliary loss", "coefficient included"),
}
"""Metric -> title and meaning, in the order of the page."""
Lines = Sequence[Mapping[str, Any]]


def run_facts(lines: Lines, validations: Lines, bad: Lines, *, config: Config, mix: Manifest) -> dict[str, Any]:
    """What the head of the page says."""
    tokens = [value for line in lines for name, value in line.items() if name.startswith("tokens/")]
    samples = [value for line in lines for name, value in line.items() if name.startswith("samples/")]
    held_out = [line["validation/loss"] for line in validations if is_number(line.get("validation/loss"))]
    return {
        "model": config.policy.model_name_or_path,
        "mix": mix.name,
        "mix_version": mix.fingerprint,
        "steps": lines[-1]["step"],
        "attempts": max(line.get("attempt", 1) for line in lines),
        "epochs": lines[-1]["epoch"] + 1,
        "samples": sum(samples),
        "tokens": sum(tokens),
        "first_loss": _shown(lines[0]["train/loss"]),
        "last_loss": _shown(lines[-1]["train/loss"]),
        "best_validation": min(held_out, default=None),
        "tokens_per_second": _median(lines, "train/useful_tokens_per_second"),
        "padding": _median(lines, "train/padding_share"),
        "wait": _median(lines, "data/wait_seconds"),
        "mfu": _median(lines, "train/mfu"),
        "bad_steps": len({line["step"] for line in bad}),
    }


def curves(lines: Lines) -> list[dict[str, Any]]:
    """The curves of metrics that the run has."""
    found = [_curve(key, title, about, lines) for key, (title, about) in CURVES.items()]
    return [one for one in found if one["points"]]


def validation_curves(validations: Lines) -> list[dict[str, Any]]:
    """The held-out loss, overall and of each dataset; a later attempt's line of a step counts."""
    latest = {line["step"]: line for line in validations}
    lines = [latest[step] for step in sorted(latest)]
    found = [_curve("validation/loss", "Validation loss", "on held-out samples, each once", lines)]
    names = sorted({name for line in lines for name in line if name.startswith("validation/loss/")})
    found += [_curve(name, f"Validation loss: {name.split('/', 2)[2]}", "", lines) for name in names]
    return [one for one in found if one["points"]]


def dataset_rows(lines: Lines, mix: Manifest) -> list[dict[str, Any]]:
    """Of each dataset: what was asked for, what the steps took, and the course of its loss."""
    names = [dataset.name for dataset in mix.datasets if dataset.num_draws > 0]
    samples, tokens = ({name: _sum(lines, f"{kind}/{name}") for name in names} for kind in ("samples", "tokens"))
    rows = []
    for dataset in (one for one in mix.datasets if one.num_draws > 0):
        points = _curve(f"loss/{dataset.name}", "", "", lines)["points"]
        rows.append(
            {
                "name": dataset.name,
                "asked": dataset.share,
                "by_tokens": mix.weight_unit == "tokens",
                "samples": samples[dataset.name],
                "tokens": tokens[dataset.name],
                "share_of_samples": samples[dataset.name] / max(1, sum(samples.values())),
                "share_of_tokens": tokens[dataset.name] / max(1, sum(tokens.values())),
                "repeats": samples[dataset.name] / max(1, dataset.num_selected),
                "loss": points,
            }
        )
    return rows


def bad_steps(lines: Lines) -> list[dict[str, Any]]:
    """What the guards found, a line for each step, with the names of its worst samples."""
    return [
        {
            "step": line["step"],
            "reason": str(line.get("reason", "")),
            "action": str(line.get("action", "")),
            "loss": _shown(line.get("loss")),
            "grad_norm": _shown(line.get("grad_norm")),
            "samples": [f"{one.get('dataset')}/{one.get('sample_id')}" for one in line.get("samples", [])[:3]],
        }
        for line in lines
    ]


def is_number(value: Any) -> bool:
    """Can a curve show it?"""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _curve(key: str, title: str, about: str, lines: Lines) -> dict[str, Any]:
    found = [(line["step"], float(line[key])) for line in lines if is_number(line.get(key))]
    return {"key": key, "title": title, "about": about, "points": _thinned(found), "steps": len(found)}


def _thinned(points: Sequence[tuple[int, float]]) -> list[list[float]]:
    """[last step, mean, least, most] of runs of neighbours; as they are where they are few."""
    size = math.ceil(len(points) / MOST_POINTS) or 1
    groups = [points[begin : begin + size] for begin in range(0, len(points), size)]
    return [
        [group[-1][0], math.fsum(values) / len(values), min(values), max(values)]
        for group in groups
        for values in [[value for _, value in group]]
    ]


def _sum(lines: Lines, key: str) -> int:
    return sum(int(line.get(key, 0)) for line in lines)


def _median(lines: Lines, key: str) -> float | None:
    found = [line[key] for line in lines if is_number(line.get(key))]
    return median(found) if found else None


def _shown(value: Any) -> float | str | None:
    """A number that JSON has, its spelling where it has none."""
    return value if value is None or is_number(value) else str(value)
