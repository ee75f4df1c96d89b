"""What a report counts: datasets, the doors by which samples left, how tokens, turns and media are spread."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import duckdb

from vlm_catalogs.manifest import Manifest, MixDataset
from vlm_prep.reasons import meaning_of
from vlm_prep.sql import read_sql

MOST_TURNS = 16
"""More turns than these are counted together."""
LEAST = 2.0**-4
"""What is smaller is counted as this: bins of equal ratio have to begin somewhere."""
BINS_PER_DOUBLING = 8
"""The finest bins; they are put together until a page has at most ``MOST_BINS`` of them."""
MOST_BINS = 32
MEASURES = {
    "tokens": ("Tokens", "tokens of a sample's longest conversation"),
    "supervised_tokens": ("Supervised tokens", "tokens of it that have a label"),
    "turns": ("Turns", f"messages of a conversation; {MOST_TURNS} stands for more as well"),
    "image_side": ("Image size", "pixels along the side of a square of the same area"),
    "duration": ("Video length", "seconds"),
}
"""Measure -> title, what its numbers are."""


def prepare_numbers(index: duckdb.DuckDBPyConnection) -> None:
    """Make the tables that the questions below ask, from the views of a mix."""
    index.execute(read_sql("report_used.sql"))
    index.execute(read_sql("report_measures.sql"))


def dataset_rows(index: duckdb.DuckDBPyConnection, manifest: Manifest) -> list[dict[str, Any]]:
    """A row per dataset of the mix, in the order of the manifest."""
    counted = {row["dataset"]: row for row in _rows(index, "report_datasets.sql")}
    rows = [_dataset_row(one, counted.get(one.name, {})) for one in manifest.datasets]
    for unit, total in (("num_draws", manifest.epoch_samples), ("epoch_tokens", sum(r["epoch_tokens"] for r in rows))):
        for row in rows:
            row[f"share_of_{unit}"] = row[unit] / total if total else 0.0
    return rows


def _dataset_row(dataset: MixDataset, counted: Mapping[str, Any]) -> dict[str, Any]:
    tokens = counted.get("tokens", 0)
    mean = tokens / dataset.num_selected if dataset.num_selected else 0.0
    num_eval = counted.get("num_eval", 0)
    return {
        "name": dataset.name,
        "format": dataset.format,
        "weight": dataset.weight,
        "asked": dataset.share,
        "num_draws": dataset.num_draws,
        "num_selected": dataset.num_selected,
        "num_eval": num_eval,
        "num_left_out": dataset.num_converted - dataset.num_selected - num_eval,
        "num_rejected": dataset.num_rejected,
        "num_parts": len(dataset.parts),
        "of_parts": dataset.of_parts,
        "tokens": tokens,
        "supervised_tokens": counted.get("supervised_tokens", 0),
        "mean_tokens": mean,
        "epoch_tokens": mean * dataset.num_draws if dataset.draw_tokens is None else dataset.draw_tokens,
        "num_images": counted.get("images", 0),
        "num_videos": counted.get("videos", 0),
    }


def door_rows(index: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Why samples are not used, counted by dataset, with what each reason means."""
    return [{**row, "meaning": meaning_of(row["reason"])} for row in _rows(index, "report_doors.sql")]


def distributions(index: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Each measure that any dataset has: its bins, the same for all datasets, and for each the counts and quantiles."""
    bins = _rows(index, "report_bins.sql", most_turns=MOST_TURNS, least=LEAST, fine=BINS_PER_DOUBLING)
    quantiles = _rows(index, "report_quantiles.sql")
    return list(_distributions(bins, quantiles))


def _distributions(bins: list[dict[str, Any]], quantiles: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for measure, (title, unit) in MEASURES.items():
        counted = [row for row in bins if row["measure"] == measure]
        if not counted:
            continue
        least, most = min(row["bin"] for row in counted), max(row["bin"] for row in counted)
        width = _width(least, most)
        first, last = least // width, most // width
        numbers: Counter[tuple[str, int]] = Counter()
        for row in counted:
            numbers[row["dataset"], row["bin"] // width] += row["number"]
        yield {
            "measure": measure,
            "title": title,
            "unit": unit,
            "edges": [_edge(measure, place * width) for place in range(first, last + 2)],
            "datasets": [
                {
                    "name": row["dataset"],
                    "number": row["number"],
                    "quantiles": row["quantiles"],
                    "counts": [numbers[row["dataset"], place] for place in range(first, last + 1)],
                }
                for row in quantiles
                if row["measure"] == measure
            ],
        }


def _width(least: int, most: int) -> int:
    """How many of the finest bins make one of the page."""
    width = 1
    while most // width - least // width >= MOST_BINS:
        width *= 2
    return width


def _edge(measure: str, place: int) -> float:
    return float(place) if measure == "turns" else float(2.0 ** (place / BINS_PER_DOUBLING))


def _rows(index: duckdb.DuckDBPyConnection, name: str, **parameters: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = index.sql(read_sql(name), params=parameters).to_arrow_table().to_pylist()
    return rows
