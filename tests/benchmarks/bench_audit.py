"""Questions to an index of one and five million samples: audit, selection, sql, re-selection; time and peak memory.

The index is synthetic (synthetic_index.py: 1.5 media a sample, copies, near copies), on local disk, in 20 parts; the
selection is also asked of one in 2,000 parts, audit and sql of that one as it is and compacted. Each question runs in
a fresh process; its peak is the largest resident set. Peers are polars and pandas, asked the same by the code that
people write: of exact duplicates the first stays, the longest conversation counts, what is too long leaves, in the
order of ids. They are not in the project's lock: pip or uv puts them into the cache (peer_packages.py). Near duplicates
have no peer: neither library can ask for them.
BENCH_SAMPLES names other sizes. Prints one JSON line per figure.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark_set import cache_folder
from peer_packages import peer_folder
from synthetic_index import LENGTHS_NAME, NUM_DATASETS, compacted_index, files_of, synthetic_index

SIZES = tuple(int(size) for size in os.environ.get("BENCH_SAMPLES", "1000000,5000000").split(","))
MANY_PARTS = 2_000
RESELECTED = 1_000_000
PEERS = (
    "polars==2.1.0",
    "polars-runtime-32==2.1.0",
    "pandas==3.1.1",
    "pytz==2026.6",
    "tzdata==2026.6",
    "six==1.17.0",
    "python-dateutil==4.0.0",
)
MAX_LENGTH = 8_192
GROUP_BY = "select dataset, count(*) as n, sum(total_tokens) as tokens, avg(num_images) as images from {} group by all"
TWO_TABLES = "samples join lengths using (sample_key)"
QUERIES = {"sql": GROUP_BY.format("facts"), "sql of two tables": GROUP_BY.format(TWO_TABLES)}


def select(root: Path, *, near: int | None) -> int:
    """Selected samples, by the code that build-mix runs."""
    from vlm_prep.fact_files import DECODED_NAME
    from vlm_prep.select import Population, Rules, open_index, select_samples
    from vlm_prep.selection_rules import Caps, DuplicateRule

    names = {"samples": "samples.parquet", "lengths": LENGTHS_NAME, "media": "media.parquet", "decoded": DECODED_NAME}
    files = {field: files_of(root, name) for field, name in names.items() if field != "decoded" or near is not None}
    rules = Rules(
        caps=Caps(fractions={f"set_{number:02d}": 1.0 for number in range(NUM_DATASETS)}),
        include_video=True,
        model_max_length=MAX_LENGTH,
        seed=0,
        duplicates=DuplicateRule(by="both", near=near),
    )
    with tempfile.TemporaryDirectory(dir=cache_folder()) as scratch, open_index(Path(scratch)) as index:
        found = select_samples(index, Population(**files), rules)
    return int(found.rows["selected"].to_numpy().sum())


def ask(root: Path, query: str) -> int:
    """Rows of the answer of ``vlm-prep sql``."""
    from vlm_prep.ask import ask_index

    return int(ask_index(str(root), query).num_rows)


def audit(root: Path) -> int:
    """Queries of the whole audit."""
    command = [Path(sys.executable).parent / "vlm-prep", "audit", str(root), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise RuntimeError(done.stderr)
    return len(json.loads(done.stdout)["findings"])


def select_with_polars(root: Path) -> int:
    """Exact duplicates with polars."""
    import polars as pl

    samples = pl.scan_parquet(files_of(root, "samples.parquet")).filter(pl.col("status") == "kept")
    longest = pl.scan_parquet(files_of(root, LENGTHS_NAME)).sort("total_tokens", descending=True).unique("sample_key")
    chosen = (
        samples.join(longest, on="sample_key")
        .sort("sample_key")
        .unique(["text_hash", "media_hash"], keep="first")
        .filter((pl.col("total_tokens") <= MAX_LENGTH) & (pl.col("supervised_tokens") > 0))
        .select("dataset", "sample_id", "sample_key", "total_tokens", "supervised_tokens", "vision_patches")
        .sort("dataset", "sample_id")
    )
    return int(chosen.collect().height)


def group_with_polars(root: Path) -> int:
    """The group-by with polars."""
    import polars as pl

    joined = pl.scan_parquet(files_of(root, "samples.parquet")).join(
        pl.scan_parquet(files_of(root, LENGTHS_NAME)), on="sample_key"
    )
    sums = (pl.len(), pl.col("total_tokens").sum(), pl.col("num_images").mean())
    return int(joined.group_by("dataset").agg(*sums).collect().height)


SAMPLE_COLUMNS = ["dataset", "sample_id", "sample_key", "status", "text_hash", "media_hash", "num_images"]


def _read_with_pandas(root: Path, name: str, columns: list[str] | None = None) -> Any:
    import pandas as pd

    return pd.concat([pd.read_parquet(path, columns=columns) for path in files_of(root, name)])


def select_with_pandas(root: Path) -> int:
    """Exact duplicates with pandas."""
    samples = _read_with_pandas(root, "samples.parquet", SAMPLE_COLUMNS).query("status == 'kept'")
    longest = _read_with_pandas(root, LENGTHS_NAME).sort_values("total_tokens", ascending=False)
    chosen = samples.merge(longest.drop_duplicates("sample_key"), on="sample_key").sort_values("sample_key")
    chosen = chosen.drop_duplicates(["text_hash", "media_hash"])
    chosen = chosen.query("total_tokens <= @MAX_LENGTH and supervised_tokens > 0")
    return len(chosen.sort_values(["dataset", "sample_id"]))


def group_with_pandas(root: Path) -> int:
    """The group-by with pandas."""
    joined = _read_with_pandas(root, "samples.parquet", SAMPLE_COLUMNS).merge(
        _read_with_pandas(root, LENGTHS_NAME, ["sample_key", "total_tokens"]), on="sample_key"
    )
    return len(joined.groupby("dataset").agg({"sample_id": "size", "total_tokens": "sum", "num_images": "mean"}))


WAYS: dict[str, Callable[[Path], int]] = {
    "audit": audit,
    "select exact": lambda root: select(root, near=None),
    "select near": lambda root: select(root, near=3),
    "sql": lambda root: ask(root, QUERIES["sql"]),
    "sql of two tables": lambda root: ask(root, QUERIES["sql of two tables"]),
    "polars select exact": select_with_polars,
    "polars sql of two tables": group_with_polars,
    "pandas select exact": select_with_pandas,
    "pandas sql of two tables": group_with_pandas,
}
LIMITS = {"audit": 60, "select near": 150, "sql": 3, "sql of two tables": 3}
"""Seconds at five million samples."""


def run_here(way: str, root: Path) -> None:
    """Ask once and print seconds, CPU seconds, peak memory and the answer."""
    sys.path.append(str(peer_folder(PEERS)))
    begin, cpu = time.perf_counter(), os.times()
    answer = WAYS[way](root)
    seconds, now = time.perf_counter() - begin, os.times()
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    kinds = ("user", "system", "children_user", "children_system")
    spent = sum(getattr(now, kind) - getattr(cpu, kind) for kind in kinds)
    print(json.dumps({"seconds": seconds, "cpu_seconds": spent, "peak": peak / 1e6, "answer": answer}))


def run_fresh(way: str, root: Path) -> dict[str, float] | None:
    """The same in a fresh process; None where it died, as for lack of memory."""
    done = subprocess.run([sys.executable, __file__, way, str(root)], stdout=subprocess.PIPE, text=True, check=False)
    return None if done.returncode else dict(json.loads(done.stdout.splitlines()[-1]))


def show(name: str, found: dict[str, float] | None, **more: object) -> None:
    """One JSON line."""
    line: dict[str, object] = {"benchmark": name, "unit": "s"}
    if found is None:
        line["died"] = True
    else:
        line |= {"figure": round(found["seconds"], 2), "cpu_seconds": round(found["cpu_seconds"], 2)}
        line |= {"peak_gb": round(found["peak"], 2), "answer": found["answer"]}
    print(json.dumps({**line, **more, "cores": os.cpu_count()}), flush=True)


def compare(size: int) -> None:
    """Every question to an index of ``size`` samples, the peers in turn with ours."""
    root = synthetic_index(size)
    peer_folder(PEERS)
    for way in ("audit", "sql", "sql of two tables", "select exact", "select near"):
        found = run_fresh(way, root)
        limit = {"limit": LIMITS[way]} if size == 5_000_000 and way in LIMITS else {}
        show(f"{way}, {size:,} samples", found, **limit)
        for peer in ("polars", "pandas"):
            if f"{peer} {way}" not in WAYS:
                continue
            theirs = run_fresh(f"{peer} {way}", root)
            ratio = round(theirs["seconds"] / found["seconds"], 2) if found and theirs else None
            show(f"{peer}: {way}, {size:,} samples", theirs, ratio_to_ours=ratio)


def reselect(folder: Path) -> None:
    """build-mix of 1,000,000 JSONL samples, then again with another weight: the second, in a fresh process."""
    (folder / "lines.jsonl").write_text("".join(_line(number) for number in range(RESELECTED)))
    subprocess.run([*_command("vlm-train"), "make-tiny", "--family", "qwen3_vl", "model"], cwd=folder, check=True,
                   capture_output=True)  # fmt: skip
    for number, weight in enumerate((1, 2, 3)):
        (folder / "mix.toml").write_text(
            f'[policy]\nmodel_name_or_path = "model"\n[mix]\nepoch_samples = 1000\n'
            f'[[mix.source]]\nname = "lines"\npath = "lines.jsonl"\nweight = {weight}\n'
        )
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.mds")}
        begin, cpu = time.perf_counter(), os.times()
        command = [*_command("vlm-prep"), "build-mix", "mix.toml"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        seconds, now = time.perf_counter() - begin, os.times()
        if number:
            assert {path: path.stat().st_mtime_ns for path in before} == before, "a shard was touched"
            assert "only weights or selection have changed" in done.stderr
        spent = now.children_user + now.children_system - cpu.children_user - cpu.children_system
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
        name = "build-mix again after a change of weights" if number else "build-mix the first time"
        found = {"seconds": seconds, "cpu_seconds": spent, "peak": peak, "answer": RESELECTED}
        show(f"{name}, {RESELECTED:,} samples", found, **({"limit": 10} if number else {}))


def _command(name: str) -> list[str]:
    return [str(Path(sys.executable).parent / name)]


def _line(number: int) -> str:
    words = f"what is {number} and then {number * 7919 % 1_000_003}"
    messages = [{"role": "user", "content": words}, {"role": "assistant", "content": f"the answer is {number % 97}"}]
    return json.dumps({"messages": messages}) + "\n"


def main() -> None:
    """Print every figure."""
    for size in SIZES:
        compare(size)
    many, size = synthetic_index(min(SIZES), MANY_PARTS), f"{min(SIZES):,} samples in {MANY_PARTS:,} parts"
    show(f"select near, {size}", run_fresh("select near", many))
    compacted = compacted_index(min(SIZES), MANY_PARTS)
    for way in ("audit", "sql", "sql of two tables"):
        show(f"{way}, {size}", run_fresh(way, many))
        show(f"{way}, {size}, compacted", run_fresh(way, compacted))
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        reselect(Path(folder))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        run_here(sys.argv[1], Path(sys.argv[2]))
    else:
        main()
