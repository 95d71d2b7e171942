"""Names that want to paint the terminal, compute in a spreadsheet or run in a page come out as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from weightprint.report.format import byte_count, count, number, plain_table, seconds
from weightprint.util import escape
from weightprint.util.name_patterns import patterns, split_layer
from weightprint.util.natural_order import natural_key


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("model.layers.0.weight", "model.layers.0.weight"),
        ("\x1b[2J", "\\u{1b}[2J"),
        ("a\nb\r\0", "a\\u{a}b\\u{d}\\u{0}"),
        ("\u202eevil\u2066", "\\u{202e}evil\\u{2066}"),
        ("zero\u200bwidth\ufeff", "zero\\u{200b}width\\u{feff}"),
        ("\u3164", "\\u{3164}"),
        ("größe.权重", "größe.权重"),
        ("\udc80", "\\u{dc80}"),
    ],
)
def test_hidden_characters_show(name, shown):
    assert escape.escape(name) == shown


@given(st.text())
def test_no_form_lets_anything_through(text):
    for shown in (
        escape.escape(text),
        escape.html(text),
        escape.csv(text),
        escape.markdown(text),
    ):
        assert shown.isprintable()
    assert "<" not in escape.html(text)
    assert escape.csv(text).lstrip()[:1] not in {"=", "+", "-", "@"}


def test_long_names_are_cut():
    assert escape.escape("x" * 4096) == "x" * 200 + "…"
    assert escape.escape("x" * 4096, None) == "x" * 4096


def test_markdown():
    assert escape.markdown("a|b_[x](y)`<b>") == "a\\|b\\_\\[x\\]\\(y\\)\\`\\<b\\>"


def test_numbers_for_people():
    assert [number(v) for v in (None, float("nan"), 0.123456, 1e-9, 12, 12_345_678)] == [
        "-", "-", "0.1235", "1e-09", "12", "1.235e+07",
    ]  # fmt: skip
    assert [count(n) for n in (0, 9_999, 494_032_768, 7_241_732_096)] == ["0", "9,999", "494 M", "7.24 B"]
    assert [byte_count(n) for n in (0, 999, 1000, 999_999, 1.5e12)] == ["0 B", "999 B", "1 kB", "1 MB", "1.5 TB"]
    assert [seconds(s) for s in (0.4242, 42.0, 185)] == ["0.42 s", "42 s", "3 min 5 s"]


def test_layers_and_patterns():
    assert split_layer("model.layers.7.mlp.up.weight") == ("model.layers.7", "mlp.up.weight")
    assert split_layer("lm_head.weight") == ("", "lm_head.weight")
    tensors = [(f"h.{k}.fc1.w", "F32", (2, 2), 16) for k in (0, 1, 2, 10)] + [("h.0.fc1.w", "F16", (2, 2), 8)]
    folded = patterns(tensors)
    assert [(p.name, p.dtype, p.count, p.nbytes) for p in folded] == [
        ("h.{0-2,10}.fc1.w", "F32", 4, 64),
        ("h.0.fc1.w", "F16", 1, 8),
    ]
    hostile = [(f"x.{'9' * 4000}{k}", "F32", (1,), 4) for k in range(3)]
    assert len(patterns(hostile)[0].name) < 100


def test_natural_order():
    names = ["h.10", "h.9", "h.2.b", "h.2.a", "a"]
    assert sorted(names, key=natural_key) == ["a", "h.2.a", "h.2.b", "h.9", "h.10"]


def test_plain_table():
    assert plain_table(("name", "n"), [("a", "1"), ("bbbbb", "100")]) == "name     n\na        1\nbbbbb  100\n"
    assert plain_table(("name", "n"), []) == "name  n\n"
