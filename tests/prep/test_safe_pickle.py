import io
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_prep import safe_pickle
from vlm_prep.safe_pickle import UnsafePickle, load_media_dict

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
MEDIA = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"])), st.binary() | st.binary(max_size=20).map(bytearray)
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.binary() | st.text("aü\n漢\U0001f600"),
    lambda children: (
        st.lists(children) | st.lists(children).map(tuple) | st.dictionaries(st.text("ab\n") | st.integers(), children)
    ),
)


class Payload:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call

    def __repr__(self) -> str:  # names a test, alike in every process
        return f"Payload({self.call[0].__name__})"


@settings(deadline=None, derandomize=True)
@given(MEDIA, st.sampled_from(PROTOCOLS))
def test_a_media_dict_reads_as_python_would(media: dict[str, bytes], protocol: int) -> None:
    content = pickle.dumps(media, protocol)
    assert {name: bytes(medium) for name, medium in load_media_dict(content).items()} == pickle.loads(content)


def as_plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(as_plain(item) for item in value)
    if isinstance(value, dict):
        return {key: as_plain(item) for key, item in value.items()}
    return bytes(value) if isinstance(value, memoryview) else value


@settings(deadline=None, derandomize=True)
@given(PLAIN, st.sampled_from(PROTOCOLS))
def test_the_machine_reads_any_plain_value_as_python_would(value: Any, protocol: int) -> None:
    content = pickle.dumps(value, protocol)
    assert repr(as_plain(safe_pickle._Machine(memoryview(content)).run())) == repr(pickle.loads(content))


def test_values_used_twice_and_the_python_pickler_read_alike() -> None:
    media = {"image_0": b"x" * 300, "video_0": b"y"}
    media["image_1"] = media["image_0"]
    for protocol in PROTOCOLS:
        stream = io.BytesIO()
        pickle._Pickler(stream, protocol).dump(media)
        assert load_media_dict(stream.getvalue()) == media


def test_payloads_are_slices_of_the_input() -> None:
    content = bytearray(pickle.dumps({"image_0": b"before" * 20_000}))
    media = load_media_dict(memoryview(content))
    content[:] = content.replace(b"before", b"after!")
    assert media["image_0"] == b"after!" * 20_000


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickle_that_calls_os_system_runs_nothing(tmp_path: Path, protocol: int) -> None:
    witness = tmp_path / "ran"
    content = pickle.dumps({"image_0": Payload(os.system, f"touch {witness}")}, protocol)
    with pytest.raises(UnsafePickle, match=r"posix\.system"):
        load_media_dict(content)
    assert not witness.exists()
    pickle.loads(content)
    assert witness.exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("value", "refused"),
    [
        (np.zeros(3), r"numpy\.|uses opcode"),
        (Path("a"), r"pathlib\.|copy_reg"),
        (Payload(eval, "1"), r"(builtins|__builtin__)\.eval"),
        (Payload(getattr, 1, "real"), r"(builtins|__builtin__)\.getattr"),
        (Payload(bytearray, 1 << 40), "makes bytes from something else"),
        (Payload(bytes, [1]), "makes bytes from something else"),
        ({1, 2}, r"\.set|EMPTY_SET"),
        (frozenset([1]), r"\.frozenset|FROZENSET"),
        (1j, r"\.complex"),
        (print, r"(builtins|__builtin__)\.print"),
    ],
    ids=repr,
)
def test_what_is_no_plain_data_is_refused_by_name(value: object, refused: str, protocol: int) -> None:
    with pytest.raises(UnsafePickle, match=refused):
        load_media_dict(pickle.dumps({"image_0": value}, protocol))


@pytest.mark.parametrize(
    ("content", "refused"),
    [
        (b"Pid\n.", "PERSID"),
        (b"\x80\x02K\x01Q.", "BINPERSID"),
        (b"(ios\nsystem\nS'ls'\n.", "INST"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"cos\nsystem\n(S'ls'\ntR.", r"os\.system"),
        (b"cbuiltins\nbytes.__class__\n)R.", r"builtins\.bytes\.__class__"),
        (b"\x80\x04\x8c\x08builtins\x94\x8c\x0fbytes.fromhex.x\x93.", r"bytes\.fromhex"),
        (b"c_codecs\ndecode\n.", r"_codecs\.decode"),
        (b"c_codecs\nencode\n(Vx\nVhex\ntR.", "makes bytes"),
        (b"}(Va\nNu}b.", "BUILD"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"]]R.", "calls a list"),
    ],
)
def test_opcodes_beyond_plain_data_are_refused_by_name(content: bytes, refused: str) -> None:
    with pytest.raises(UnsafePickle, match=refused):
        load_media_dict(content)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "truncated pickle"),
        (b"\xff\xd8\xff", "not a pickle: opcode 0xff"),
        (b"r\xff\xff\xff\x7f", "damaged"),
        (b"\x8e" + struct.pack("<Q", 1 << 60), "truncated pickle"),
        (b"\x8b\xff\xff\xff\x7f1", "truncated pickle"),
        (b"}a.", "no list to add to|damaged"),
        (b"K\x01K\x02a.", "no list to add to"),
        (b"h\x05.", "damaged"),
        (b"0.", "damaged"),
        (b"}(K\x01u.", "shorter|longer"),
        (b"L" + b"9" * 10_000 + b"L\n.", "limit"),
        (b"N" * (safe_pickle.MAX_OPCODES + 1), "opcodes"),
        (b"}(" + b")\x85" * 90 + b"Nu.", "a dict key of type tuple"),
        (pickle.dumps([b"x"]), "expected a dict of media, got list"),
        (pickle.dumps({1: b"x"}), "expected media names of type str"),
        (pickle.dumps({"image_0": "text"}), "medium 'image_0': expected bytes, got str"),
        (pickle.dumps({"image_0": None}), "expected bytes, got NoneType"),
        (pickle.dumps({"image_0": {"bytes": b"x"}}), "expected bytes, got dict"),
        (pickle.dumps({"\ud800": b"x"}), "utf-8"),
        (pickle.dumps({"\ud800": b"x"}, 0), "surrogates not allowed"),
    ],
)
def test_a_damaged_pickle_or_another_value_is_a_value_error(content: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        load_media_dict(content)


def test_a_memo_number_costs_no_memory() -> None:
    assert load_media_dict(b"}r\xff\xff\xff\xff.") == {}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_truncation_is_a_value_error(protocol: int) -> None:
    content = pickle.dumps({"image_0": b"x" * 300, "b": bytearray(b"yy")}, protocol)
    for end in range(len(content)):
        with pytest.raises(ValueError, match=r"truncated|damaged"):
            load_media_dict(content[:end])


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda tail: b"\x80\x04}(\x8c\x01a" + tail))
def test_any_bytes_give_a_media_dict_or_a_value_error(content: bytes) -> None:
    try:
        media = load_media_dict(content)
    except ValueError:
        return
    assert all(isinstance(name, str) and isinstance(medium, memoryview) for name, medium in media.items())


def test_a_name_that_would_print_for_ever_is_refused() -> None:
    """A list of itself, forty times over, where the module of a class should stand: 2**40 items to print."""
    twice = b"]\x94" + b"".join(b"](h" + bytes([number]) + b"h" + bytes([number]) + b"e\x94" for number in range(40))
    with pytest.raises(UnsafePickle, match="name is no text"):
        load_media_dict(b"\x80\x04" + twice + b"\x8c\x01x\x93.")


def test_one_text_is_not_spelled_into_bytes_again_and_again() -> None:
    """1 MiB of text and 10,000 calls of bytes(text, "latin-1") would take 10 GB."""
    text = b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20) + b"q\x00"
    maker = b"c_codecs\nencode\nq\x01X\x06\x00\x00\x00latin1q\x02"
    again = b"h\x01h\x00h\x02\x86R"
    with pytest.raises(UnsafePickle, match="more bytes than it holds"):
        load_media_dict(b"\x80\x02" + text + maker + again * 10_000 + b".")
