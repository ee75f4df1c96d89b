"""Speed of conversion: an i4 source of real pictures to shards and index, against what else people do with it.

The source is the benchmark set (benchmark_set.py), BENCH_TIMES (10) times over. Peers, in the same run on the same
tars: the naive loop that people write (tarfile, json.loads, streaming.MDSWriter with bytes columns), litdata.optimize,
and ``cp -r``. litdata is not in the project's lock: pip puts it into the cache of the benchmark set, beside the
project's own torch; where that fails, a line says so. Each run is a fresh process whose bytecode is cached, as an
installed program's is; loop time leaves out imports. fsync is left out of both on both sides and printed apart
(MDSWriter never syncs). Medians of ROUNDS interleaved rounds. Prints one JSON line per comparison, for some ways also
of the set once over.

One process of ours that has a second core copies and hashes full shards in a thread of its own; held to one core
("ours, one core") it does not, nor does each of two processes.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmark_set import benchmark_set, cache_folder
from peer_packages import peer_folder

TIMES = int(os.environ.get("BENCH_TIMES", "10"))
ROUNDS = 3
LITDATA = ("litdata==0.2.76", "lightning-utilities==0.15.3")


class Spent(NamedTuple):
    """What a loop took, imports left out."""

    seconds: float
    cpu: float
    """CPU seconds, child processes included."""


def now() -> Spent:
    """The clocks as they stand."""
    return Spent(time.perf_counter(), sum(os.times()[:4]))


def since(begin: Spent) -> Spent:
    """What has been spent since ``begin``."""
    end = now()
    return Spent(end.seconds - begin.seconds, end.cpu - begin.cpu)


def convert_ours(root: Path, out: Path, *, num_workers: int, num_cores: int | None = None) -> Spent:
    """Seconds to convert the whole source with this project, index and header facts included."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:num_cores])
    from vlm_catalogs.source import I4Source
    from vlm_prep.convert import ConvertTask
    from vlm_prep.i4_inputs import plan_i4
    from vlm_prep.part_store import LocalStore
    from vlm_prep.raw_sample import Limits
    from vlm_prep.workers import run_tasks

    begin = now()
    wdinfo = {"train": str(root / "wdinfo.json")}
    source = I4Source(name="bench", weight=1.0, wdinfo=wdinfo, bucket="", local_root=None, origin="bench")
    (out / "staging").mkdir(parents=True)
    tasks = [
        ConvertTask(
            source=source,
            file_format="i4",
            part=part,
            store=LocalStore(out),
            layout=out / "layout",
            staging=out / "staging",
            scratch=out / "staging",
            limits=Limits(max_sample_bytes=1 << 28),
        )
        for part in plan_i4(source, allow_missing_tars=False)[0]
    ]
    run_tasks(convert_unsynced, tasks, num_workers=num_workers, on_done=lambda _: None)
    return since(begin)


def convert_unsynced(task: Any) -> None:
    """Convert one part without fsync."""
    import vlm_prep.staging as staging
    from vlm_prep.convert import convert_part

    staging.sync_tree = staging.sync_folder = lambda path: None  # type: ignore[assignment]
    convert_part(task)


def convert_naively(root: Path, out: Path) -> Spent:
    """Seconds of the loop that people write."""
    from streaming import MDSWriter

    begin = now()
    columns = {"id": "str", "messages": "json", "image": "bytes"}
    with MDSWriter(out=str(out), columns=columns, hashes=["xxh3_64"]) as writer:
        for name in tar_names(root):
            for sample in read_tar(root, name):
                writer.write(sample)
    return since(begin)


def convert_with_litdata(root: Path, out: Path, *, num_workers: int) -> Spent:
    """Seconds of litdata.optimize over the same loop."""
    sys.path.append(str(peer_folder(LITDATA)))
    import litdata

    begin = now()
    litdata.optimize(
        fn=partial(read_tar, root),
        inputs=tar_names(root),
        output_dir=str(out),
        num_workers=num_workers,
        chunk_bytes="64MB",
    )
    return since(begin)


def tar_names(root: Path) -> list[str]:
    """The tars of the source."""
    names: list[str] = json.loads((root / "wdinfo.json").read_text())["data_list"]
    return names


def read_tar(root: Path, name: str) -> Iterator[dict[str, Any]]:
    """The samples of one tar, read as people read them."""
    with tarfile.open(root / "texts" / name) as texts, tarfile.open(root / "media" / name) as media:
        for text, picture in zip(texts, media, strict=True):
            messages = json.loads(content_of(texts, text))
            yield {"id": text.name[:-5], "messages": messages, "image": content_of(media, picture)}


def content_of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """A member's bytes."""
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def copy(root: Path, out: Path) -> Spent:
    """Seconds of ``cp -r``."""
    begin = now()
    subprocess.run(["cp", "-r", str(root), str(out)], check=True)
    return since(begin)


WAYS: dict[str, Callable[[Path, Path], Spent]] = {
    "ours": partial(convert_ours, num_workers=1),
    "ours, one core": partial(convert_ours, num_workers=1, num_cores=1),
    "ours, two processes": partial(convert_ours, num_workers=2),
    "naive MDSWriter": convert_naively,
    "litdata.optimize": partial(convert_with_litdata, num_workers=1),
    "cp -r": copy,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Seconds of one way, once."""

    loop: float
    loop_cpu: float
    """CPU seconds of the loop, child processes included: what other programs on the machine disturb least."""
    wall: float
    cpu: float
    """Of the process and those that it started, imports included."""
    fsync: float
    """To have it all on the disk afterwards."""


def run_fresh(way: str, root: Path, out: Path) -> Run:
    """One way in a fresh process."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(cache_folder() / "bytecode")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before, begin = os.times(), time.perf_counter()
    command = [sys.executable, __file__, way, str(root), str(out)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
    wall, after = time.perf_counter() - begin, os.times()
    begin = time.perf_counter()
    subprocess.run(["sync", "-f", str(out)], check=True)
    fsync = time.perf_counter() - begin
    shutil.rmtree(out)
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    loop, loop_cpu = map(float, done.stdout.split()[-2:])
    return Run(loop=loop, loop_cpu=loop_cpu, wall=wall, cpu=cpu, fsync=fsync)


def main() -> None:
    """Print a JSON line per comparison."""
    peer_folder(LITDATA)
    compare(list(WAYS), TIMES)
    if TIMES != 1:
        compare(["ours", "naive MDSWriter", "cp -r"], 1)  # where the imports count


def compare(ways: list[str], times: int) -> None:
    """Run ``ways`` in turn over the set, ``times`` over, and print their comparisons."""
    root = benchmark_set(times)
    runs: dict[str, list[Run]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        small = benchmark_set(1)
        for way in ways:
            run_fresh(way, small, Path(folder) / "out")  # fills the caches of bytecode and pages
        for _ in range(ROUNDS):
            for way in ways:
                runs[way].append(run_fresh(way, root, Path(folder) / "out"))
    tars = list(root.rglob("*.tar"))
    setting = {
        "samples": json.loads((root / "wdinfo.json").read_text())["total_key_count"],
        "megabytes": round(sum(path.stat().st_size for path in tars) / 1e6),
        "cores": os.cpu_count(),
        "rounds": ROUNDS,
        "load": os.getloadavg()[0],
    }
    for way, peer in (
        *(("ours", peer) for peer in ways if not peer.startswith("ours")),
        ("ours, two processes", "ours"),
        ("ours, two processes", "ours, one core"),
        ("ours, one core", "naive MDSWriter"),
        ("cp -r", "naive MDSWriter"),  # as fast as what only copies, through the page cache, can be
    ):
        if way in runs:
            print_comparison(way, runs[way], peer, runs[peer], setting)


def print_comparison(way: str, ours: list[Run], peer: str, theirs: list[Run], setting: dict[str, Any]) -> None:
    """One JSON line for loop time and one for wall time."""
    for clock in ("loop", "wall"):
        seconds, peer_seconds = (statistics.median(getattr(run, clock) for run in runs) for runs in (ours, theirs))
        line = {
            "benchmark": f"convert, {clock}, {way} against {peer}",
            "unit": "samples/s",
            "figure": round(setting["samples"] / seconds),
            "peer": round(setting["samples"] / peer_seconds),
            "ratio": round(peer_seconds / seconds, 2),
            **cpu_seconds("cpu", ours, theirs),
            **cpu_seconds("loop_cpu", ours, theirs),
            "fsync_seconds": round(statistics.median(run.fsync for run in ours), 2),
            "peer_fsync_seconds": round(statistics.median(run.fsync for run in theirs), 2),
            **setting,
        }
        print(json.dumps(line), flush=True)


def cpu_seconds(name: str, ours: list[Run], theirs: list[Run]) -> dict[str, float]:
    """The medians of a clock of CPU seconds, and their ratio."""
    seconds, peer_seconds = (statistics.median(getattr(run, name) for run in runs) for runs in (ours, theirs))
    return {
        f"{name}_seconds": round(seconds, 2),
        f"peer_{name}_seconds": round(peer_seconds, 2),
        f"{name}_ratio": round(peer_seconds / seconds, 2),
    }


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(*WAYS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3])))
    else:
        main()
