"""Every key of a TOML is found on the line where it stands."""

from typing import Any

import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_catalogs.config.toml_lines import dotted, find_lines

EVERY_FORM = '''\
# a comment with [brackets] and key = 1
top = 1
title = "a # no comment, \\" quoted ]"
"a b".'c.d' = true

[train] # header comment
epoch = 3
train_policy.mini_batch = 2
train_policy.dataset = { name = "x", split = ["a", "b"] }
betas = [
    0.9,  # a comment with ] and ,
    0.999,
]
text = """
not_a_key = 1
[not.a.table]
\\""" still inside"""
literal = \'\'\'
also_no_key = "
\'\'\'\'\'

[[mix.source]]
name = "one"
[mix.source.inner]
deep = 1

[[ mix . source ]]
name = "two"
when = 2026-01-02 03:04:05

[policy . lora]
"r" = 8
trainable_map = { "layers.*" = true, b = { c = [ { d = 1 } ] } }
'''


def test_each_form_of_key_is_on_its_line() -> None:
    lines = find_lines(EVERY_FORM)
    wanted = {
        "top": "top = 1",
        "title": "title =",
        '"a b"."c.d"': '"a b"',
        "train": "[train]",
        "train.epoch": "epoch = 3",
        "train.train_policy.mini_batch": "train_policy.mini_batch",
        "train.train_policy.dataset.name": "train_policy.dataset =",
        "train.train_policy.dataset.split[1]": "train_policy.dataset =",
        "train.betas": "betas = [",
        "train.betas[1]": "    0.999",
        "train.text": "text =",
        "train.literal": "literal =",
        "mix.source[0]": "[[mix.source]]",
        "mix.source[0].name": 'name = "one"',
        "mix.source[0].inner": "[mix.source.inner]",
        "mix.source[0].inner.deep": "deep = 1",
        "mix.source[1]": "[[ mix . source ]]",
        "mix.source[1].name": 'name = "two"',
        "mix.source[1].when": "when =",
        "policy.lora": "[policy . lora]",
        "policy.lora.r": '"r" = 8',
        'policy.lora.trainable_map."layers.*"': "trainable_map",
        "policy.lora.trainable_map.b.c[0].d": "trainable_map",
    }
    rows = EVERY_FORM.split("\n")
    assert {key: rows[lines[key] - 1][: len(start)] for key, start in wanted.items()} == wanted


def test_what_stands_inside_strings_is_no_key() -> None:
    lines = find_lines(EVERY_FORM)
    assert not [key for key in lines if "not" in key or "no_key" in key]


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> set[str]:
    """Dotted keys of all values, as a parser sees them."""
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = {dotted(path)} if path else set()
    return found.union(*(leaves(inner, (*path, step)) for step, inner in steps))


def test_the_scanner_finds_exactly_the_keys_that_a_parser_finds() -> None:
    assert leaves(tomli.loads(EVERY_FORM)) == set(find_lines(EVERY_FORM))


TEXTS = st.sampled_from(['"x"', "'y'", '"""a\nb = 1\n"""', "'''\n[t]\n'''", '"\\" ] } #"'])
SCALARS = st.one_of(TEXTS, st.sampled_from(["1", "-2.5e3", "true", "1979-05-27T07:32:00Z", "nan", "0xff"]))
BREAKS = st.sampled_from(["", " ", "\n", " # ] } c\n"])
NAMES = st.sampled_from(["a", "b-c", '"d.e"', "'f g'", "3"])


@st.composite
def values(draw: st.DrawFn, depth: int = 2) -> str:
    kind = draw(st.sampled_from(["scalar", "array", "table"])) if depth else "scalar"
    if kind == "scalar":
        return draw(SCALARS)
    if kind == "array":
        items = draw(st.lists(values(depth - 1), max_size=3))
        return "[" + ",".join(f"{draw(BREAKS)}{item}{draw(BREAKS)}" for item in items) + "]"
    names = draw(st.lists(NAMES, max_size=3, unique=True))
    return "{" + ", ".join(f"{name} = {draw(values(depth - 1))}" for name in names) + "}"


@st.composite
def documents(draw: st.DrawFn) -> str:
    text = ""
    for number in range(draw(st.integers(0, 4))):
        header = draw(st.sampled_from([f"[t{number}]", f"[t{number}.'x y']", "[[many]]", "[[many]]"]))
        text += f"{draw(BREAKS)}\n{header}\n"
        for name in draw(st.lists(NAMES, max_size=3, unique=True)):
            text += f"{name} = {draw(values())} # c\n"
    return text


@settings(max_examples=150, deadline=None)
@given(documents())
def test_any_valid_toml_gives_the_parsers_keys(text: str) -> None:
    assert leaves(tomli.loads(text)) == set(find_lines(text))
