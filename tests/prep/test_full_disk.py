"""A disk that fills up while a mix is measured, selected and written: one message, and with room it goes on."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.mounts import mounted

from vlm_catalogs.manifest import current_mix, read_manifest
from vlm_prep.cli import main
from vlm_prep.verify import verify

PAGE = 4096


@pytest.fixture
def disk(built: Path) -> Iterator[Path]:
    """A disk of its own, of one page."""
    with mounted(built / "disk", "tmpfs", f"size={PAGE}") as folder:
        yield folder


def give(disk: Path, num_pages: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={num_pages * PAGE}", disk], check=True)


def used(disk: Path) -> int:
    """Pages of its files."""
    return sum(-(-path.stat().st_size // PAGE) for path in disk.rglob("*") if path.is_file())


def build(*settings: str) -> int:
    return main(["build-mix", "mix.toml", "--num-workers", "1", *(f"--set={one}" for one in settings)])


ON_DISK = ("mix.root='disk'", "mix.audit.at_build='never'")


def test_a_mix_that_finds_no_room_at_any_moment_is_written_when_there_is_some(
    disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Page by page: each file of a version is once the first one that does not fit."""
    places = set()
    for num_pages in range(1, 40):
        give(disk, num_pages)
        capfd.readouterr()
        code = build(*ON_DISK)
        if code == 0:
            break
        last = capfd.readouterr().err.splitlines()[-1]
        assert code == 2 and last.endswith("No space left on device"), last
        places.add(last.partition(": ")[0])
        for manifest in disk.glob("mix/*/manifest.json"):
            assert read_manifest(manifest.parent).datasets
        assert not list(disk.rglob(".staging/*"))
    assert code == 0 and len(places) > 1
    assert current_mix(disk / "mix").name == current_mix(Path("mixes/mix")).name
    assert verify(str(disk / "mix"), num_workers=1).findings == ()


def test_a_mix_stays_as_it_is_when_the_next_finds_no_room(disk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    give(disk, 64)
    assert build(*ON_DISK) == 0
    before = {path: path.read_bytes() for path in disk.rglob("*") if path.is_file() and path.name != "sources.json"}
    give(disk, used(disk) + 1)
    other = (*ON_DISK, "mix.seed=4", "policy.model_max_length=512")
    assert build(*other) == 2
    assert capfd.readouterr().err.endswith("No space left on device\n")
    assert {path: path.read_bytes() for path in before} == before
    assert verify(str(disk / "mix"), num_workers=1).findings == ()
    give(disk, 128)
    assert build(*other) == 0
    assert verify(str(disk / "mix"), num_workers=1).findings == ()


@pytest.mark.slow
def test_lengths_find_room_part_by_part(disk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Shards, scratch and mixes on one disk that is full when lengths of another encoding are measured."""
    give(disk, 4096)
    settings = ("mix.shards='disk/shards'", "mix.root='disk/mixes'", "mix.audit.at_build='never'")
    assert build(*settings) == 0
    num_pages, found = used(disk), [3]
    for more in range(2, 60):
        give(disk, num_pages + more)
        capfd.readouterr()
        if (code := build(*settings, "policy.model_max_length=700")) == 0:
            break
        assert code == 2 and "No space left on device" in capfd.readouterr().err.splitlines()[-1]
        found.append(len(list(disk.rglob("lengths/*.parquet"))))
    assert code == 0 and found == sorted(found) and 3 < found[-1] <= 6
    for path in ("disk/shards", "disk/mixes/mix"):
        assert verify(path, num_workers=1).findings == ()


def test_an_audit_and_a_report_without_room_leave_the_mix_usable(disk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    give(disk, 64)
    assert build(*ON_DISK) == 0
    give(disk, used(disk) + 12)
    assert main(["report", "disk/mix"]) == 2
    assert capfd.readouterr().err.endswith("No space left on device\n")
    assert build("mix.root='disk'") == 0
    assert "the mix is built, but not its audit and report: " in capfd.readouterr().err
    assert verify(str(disk / "mix"), num_workers=1).findings == ()
