import io
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_prep.memory_file import MemoryFile

STEPS = st.lists(
    st.tuples(st.just("read"), st.integers(-1, 30))
    | st.tuples(st.just("seek"), st.integers(0, 30))
    | st.tuples(st.just("skip"), st.integers(0, 10))
    | st.tuples(st.just("end"), st.integers(-5, 5))
)


def played(file: io.IOBase, steps: list[tuple[str, int]]) -> list[object]:
    def play(action: str, number: int) -> object:
        match action:
            case "read":
                return file.read(number)
            case "seek":
                return file.seek(number)
            case "skip":
                return file.seek(number, os.SEEK_CUR)
        return file.seek(number, os.SEEK_END)

    return [(play(*step), file.tell()) for step in steps]


@settings(deadline=None, derandomize=True)
@given(st.binary(min_size=5, max_size=20), STEPS)
def test_it_behaves_like_a_file_of_the_same_bytes(content: bytes, steps: list[tuple[str, int]]) -> None:
    assert played(MemoryFile(memoryview(content)), steps) == played(io.BytesIO(content), steps)


def test_a_position_before_the_beginning_is_refused() -> None:
    with pytest.raises(ValueError, match="seek to -1"):
        MemoryFile(memoryview(b"abc")).seek(-1)
