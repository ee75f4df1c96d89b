"""The environment that the tests run in is the one that requirements.lock names."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement

LOCK = Path(__file__).parents[1] / "requirements.lock"


def locked() -> dict[str, str]:
    """Name -> version of every pin that holds on this machine."""
    lines = [line.rstrip(" \\") for line in LOCK.read_text().splitlines() if line and not line.startswith((" ", "#"))]
    wanted = [Requirement(line) for line in lines]
    return {
        one.name: str(one.specifier).removeprefix("==") for one in wanted if one.marker is None or one.marker.evaluate()
    }


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def test_an_installer_that_overrides_pins_gets_no_other_versions() -> None:
    pins = locked()
    assert len(pins) > 100
    assert {name: installed(name) for name in pins} == pins
