import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_catalogs import json_text

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=json_text.MIN_INTEGER, max_value=json_text.MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: st.lists(children) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), children),
)


@settings(deadline=None, derandomize=True)
@given(JSON_VALUES)
def test_what_is_written_reads_back_with_equal_types(value: object) -> None:
    assert repr(json_text.loads(json_text.dumps(value))) == repr(value)


@settings(deadline=None, derandomize=True)
@given(JSON_VALUES)
def test_what_is_written_is_the_text_of_the_standard_library(value: object) -> None:
    assert json_text.dumps(value) == json.dumps(value)
    assert json_text.dumps((value, {1: value, None: "\ud800"})) == json.dumps((value, {1: value, None: "\ud800"}))


def test_what_is_no_json_is_refused_when_it_is_written() -> None:
    for value in ({1, 2}, [b"bytes"], {(1, 2): 3}):
        with pytest.raises(TypeError):
            json_text.dumps(value)


@settings(deadline=None, derandomize=True)
@given(JSON_VALUES)
def test_bytes_views_and_text_read_alike(value: object) -> None:
    content = json.dumps(value, ensure_ascii=False).encode()
    read = json_text.loads(content)
    assert repr(read) == repr(json.loads(content))
    assert repr(json_text.loads(memoryview(content))) == repr(json_text.loads(bytearray(content))) == repr(read)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "broken JSON"),
        ("[1,]", "broken JSON"),
        ("{'a': 1}", "broken JSON"),
        ('"\x01"', "broken JSON"),
        ("01", "broken JSON"),
        ("1 2", "broken JSON"),
        ("NaN", "NaN is not JSON"),
        ("[-Infinity]", "-Infinity is not JSON"),
        ("1e400", "over the range of a double"),
        ("18446744073709551616", "integer over 64 bit"),
        ("-9223372036854775809", "integer over 64 bit"),
        ("[1" + "0" * 29 + "]", "integer over 64 bit"),
        ("9" * 100_000, "integer over 64 bit"),
        ('["\\ud800"]', "lone surrogate"),
        ('{"\\udfff": 1}', "lone surrogate"),
        ('["\ud800"]', "lone surrogate"),
        (b'"\xff"', "invalid UTF-8 at byte 1"),
        (b'"\xed\xa0\x80"', "invalid UTF-8"),
        ("[" * 201 + "]" * 201, "nested deeper than 200"),
        ('{"a":' * 201 + "1" + "}" * 201, "nested deeper than 200"),
        ("[" * 1500 + "]" * 1500, "nested deeper than 200"),
        ("[" * 100_000, "nested deeper than 200"),
        ("[" * 900 + '"\\ud800"' + "]" * 900, "lone surrogate|nested deeper"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_its_reason(text: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        json_text.loads(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18446744073709551615", 2**64 - 1),
        ("-9223372036854775808", -(2**63)),
        ("0.12345678901234567890123", 0.12345678901234567890123),
        ("123456789012345678901234567890.5", 123456789012345678901234567890.5),
        ('"' + "7" * 40 + '"', "7" * 40),
        ("1e30", 1e30),
        ("-0", 0),
        ("-0.0", -0.0),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ('"\\u0000"', "\0"),
        ('{"a": 1, "a": 2}', {"a": 2}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        ("\ufeff[]", []),
    ],
)
def test_what_is_storable_reads_with_its_exact_value(text: str | bytes, value: object) -> None:
    assert repr(json_text.loads(text)) == repr(value)


def test_nesting_of_exactly_the_limit_and_many_brackets_are_read() -> None:
    assert json_text.dumps(json_text.loads("[" * 200 + "]" * 200)) == "[" * 200 + "]" * 200
    assert json_text.loads(json_text.dumps([{}] * 1000)) == [{}] * 1000
    assert json_text.loads('"' + "[" * 1000 + '"') == "[" * 1000
