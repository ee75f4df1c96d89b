"""What end-to-end tests share: an object store with the demo's i4 data, and a tiny model."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.object_server import ObjectServer

from vlm_train.make_tiny import make_tiny

DEMO = Path(__file__).parents[1] / "demo_data"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    """A running store; its bucket ``sources`` is for reading."""
    found = ObjectServer(tmp_path_factory.mktemp("store"))
    found.start()
    found.fill("sources", DEMO / "i4")
    yield found
    found.stop()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random model of the usual family."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    make_tiny("qwen3_vl", folder)
    return folder
