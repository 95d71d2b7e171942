"""The screens of `compare`, `diff` and `stats` as people meet them: what they say, that it fits, in any terminal."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import weightprint
from click.testing import CliRunner
from safetensors.numpy import save_file
from synthetic import decoder
from weightprint.cli import cli
from weightprint.compare.compare import Comparison
from weightprint.evidence.tests import TESTS
from weightprint.operations.base import Operation
from weightprint.report import compare as shown
from weightprint.report.diff import lines as diff_lines
from weightprint.report.pen import Pen
from weightprint.report.progress import progress_bar
from weightprint.report.screen import done, layer_runs
from weightprint.verdict.error_rates import error_rate
from weightprint.verdict.values import LayerMatch

Array = npt.NDArray[Any]
DEMO = Path(weightprint.__file__).parent / "demo" / "models"
#: Words that only experts use; test names are added to them.
JARGON = {"log10", "residual", "Spearman", "detrended", "centred", "FFN", "FFNs", "decoder"} | {t.name for t in TESTS}


def saved(folder: Path, name: str, tensors: dict[str, Array]) -> Path:
    (folder / name).mkdir()
    save_file({n: np.ascontiguousarray(x) for n, x in tensors.items()}, folder / name / "model.safetensors")
    return folder / name


def other_width(folder: Path) -> Path:
    return saved(folder, "wide", decoder(4, d=96))


#: What is compared → the verdict, what the screen must say beside it.
PAIRS: dict[str, tuple[Callable[[Path], tuple[Path, Path]], str, tuple[str, ...]]] = {
    "identical": (lambda f: (DEMO / "parent", DEMO / "parent"), "identical", ("IDENTICAL", "Not told")),
    "re-encoded": (
        lambda f: (
            saved(f, "a", decoder(0)),
            saved(f, "b", {n: x.astype(ml_dtypes.bfloat16) for n, x in decoder(0).items()}),
        ),
        "re_encoded",
        ("RE-ENCODED", "certain", "stored as BF16 instead of F32"),
    ),
    "fine-tune": (
        lambda f: (DEMO / "parent", DEMO / "finetune"),
        "shared_origin",
        ("SHARED ORIGIN", "overwhelming", "weights moved 8", "B 0-4 = A 0-4", "640 of 640 feed-forward units"),
    ),
    "upcycled": (
        lambda f: (DEMO / "parent", DEMO / "moe"),
        "shared_origin",
        ("B is the later one", "4 experts", "25 % of their units", "From A to B"),
    ),
    "swapped": (lambda f: (DEMO / "moe", DEMO / "parent"), "shared_origin", ("A is the later one", "From B to A")),
    "shared initialisation": (
        lambda f: (DEMO / "parent", DEMO / "finetune"),
        "shared_initialisation",
        ("SHARED INITIALISATION", "little of it is left would look alike"),
    ),
    "strangers": (
        lambda f: (DEMO / "parent", DEMO / "stranger"),
        "no_evidence",
        ("NO EVIDENCE", "a finding needs 10^-6", "Looked for", "chance", "seen from", "distillation"),
    ),
    "partly shared": (
        lambda f: (
            saved(f, "a", decoder(0)),
            saved(f, "b", {n: decoder(0)[n] if "embed" in n else x for n, x in decoder(1).items()}),
        ),
        "partly_shared",
        ("PARTLY SHARED", "rows of the token table", "were not tested"),
    ),
    "inconclusive": (
        lambda f: (saved(f, "a", decoder(0)), other_width(f)),
        "inconclusive",
        ("INCONCLUSIVE", "the models differ in width", "To decide", "of its own width"),
    ),
}


def same_start(comparison: Comparison) -> Comparison:
    """What the screen would be if the same evidence read as a common start."""
    sentence = "A and B grew from one random initialisation; no training in common was found."
    name: Any = "shared_initialisation"
    return replace(comparison, result=replace(comparison.result, name=name, readings=(name,), sentence=sentence))


@pytest.fixture(scope="module")
def comparisons(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Comparison]:
    made: dict[str, Comparison] = {}

    def of(kind: str) -> Comparison:
        if kind == "shared initialisation":
            return same_start(of("fine-tune"))
        if kind not in made:
            made[kind] = weightprint.compare(*PAIRS[kind][0](tmp_path_factory.mktemp("pair")))
        return made[kind]

    return of


def screen(comparison: Comparison, width: int = 80, *, ascii: bool = False) -> list[str]:
    return [line.plain for line in shown.lines(comparison, Pen(width, ascii))]


def labels(lines: list[str]) -> list[str]:
    return [line[:16].strip() for line in lines if re.match("  [A-Z][a-z]", line)]


@pytest.mark.parametrize("kind", PAIRS)
def test_the_first_screen(comparisons: Callable[[str], Comparison], kind: str) -> None:
    comparison, (_, verdict, parts) = comparisons(kind), PAIRS[kind]
    assert comparison.verdict == verdict
    lines = screen(comparison)
    text = " ".join(" ".join(lines).split())
    assert len(lines) < 24  # and one for the prompt
    for part in parts:
        assert part in text
    said = labels(lines)
    assert said[0] == "How sure"
    assert ("Not told" if verdict in ("identical", "re_encoded") else "Against") in said
    assert ("For" in said) == (verdict not in ("identical", "re_encoded", "no_evidence", "inconclusive"))
    rate = error_rate(verdict)
    assert rate is None or f"{rate.wrong:,} of {rate.pairs:,} {rate.of}" in text
    assert not JARGON.intersection(re.findall(r"\w+", text.replace("decoder.", "")))
    # One and the same whether it was just made or read back from its JSON.
    assert screen(Comparison.from_dict(json.loads(comparison.to_json()))) == lines


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("width", [60, 80, 120])
def test_it_fits_any_terminal_and_breaks_no_word(
    comparisons: Callable[[str], Comparison], kind: str, width: int
) -> None:
    comparison = comparisons(kind)
    for verbose in (False, True):
        lines = [line.plain for line in shown.lines(comparison, Pen(width), verbose=verbose)]
        assert max(map(len, lines)) <= width
    lines = screen(comparison, width, ascii=True)
    assert all(line.isascii() for line in lines)
    words = set(" ".join(screen(comparison, 120)).split()) | {"…"}
    told = [word for line in screen(comparison, width)[4:] for word in line.split()]
    assert sum(word not in words for word in told) <= len(told) // 4  # at 60 columns other lines are left out


def test_identical_is_six_lines(comparisons: Callable[[str], Comparison]) -> None:
    assert len(screen(comparisons("identical"))) == 6


def test_whatever_was_done_and_however_it_is_called_it_fits(comparisons: Callable[[str], Comparison]) -> None:
    """The most that there can be to say at once, and names as bad as names can be."""
    evil = "evil\x1b[31m\u202e<b>" * 9
    comparison = comparisons("upcycled")
    operations = tuple(Operation("fine_tune", {}, f"{evil} {k}", 0.5) for k in range(9))
    result = replace(
        comparison.result,
        layer_map=tuple(LayerMatch(b, 3 * b % 61, 0.7) for b in range(61)),
        direction=replace(comparison.result.direction, because=f"{evil} " * 9, later=None),
        against=tuple(f"Other values under the same name in A and B: 7 tensors ({evil} {k})." for k in range(9)),
        sentence=comparison.result.sentence * 2,
    )
    history = replace(
        comparison.history, told_from=None, operations_if={"a_first": operations, "b_first": operations[:1]}
    )
    full = replace(
        comparison,
        result=result,
        history=history,
        a=replace(comparison.a, source=evil),
        b=replace(comparison.b, source="b" * 500),
    )
    for width in (60, 80, 120):
        lines = screen(full, width)
        assert max(map(len, lines)) <= width
        assert width < 80 or len(lines) < 24
        text = "".join(lines)
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "evil" in text
        assert {"How sure", "Error rate", "Who first", "Layers", "For", "Against"} <= set(labels(lines))


def test_a_name_hides_nothing_that_speaks_against(comparisons: Callable[[str], Comparison]) -> None:
    comparison = comparisons("fine-tune")
    against = (
        "Other values under the same name in A and B: 1 tensor, 50% of B's parameters (unit_agreement.log10 p).",
    )
    text = " ".join(" ".join(screen(replace(comparison, result=replace(comparison.result, against=against)))).split())
    assert "50 % of B's parameters" in text


def test_operations_are_sentences_and_unknown_ones_are_told_all_the_same() -> None:
    def says(name: str, confidence: float = 1.0, **parameters: Any) -> str:
        return done.sentence(Operation(name, parameters, "in some place", confidence))

    assert says("depth_drop", layers=[3, 4, 7], count=3) == "3 layers dropped: 3-4, 7"
    assert says("semi_structured_pruning", kept=2, of=4) == "pruned: 2 of every 4 weights set to zero"
    assert says("depth_upscaling", ranges=[[0, 5], [2, 7]], confidence=0.8).startswith("likely (.8): layers repeated")
    assert says("gaussian_noise", sd=0.00141243).endswith("standard deviation 0.00141")
    moved = says("fine_tune", relative_change=0.083, layers=[[0, 0.05], [1, 0.07]], outside={"head": 0.1}, frozen=[])
    assert "weights moved 8.3 % (layers 5 to 7 %, head 10 %)" in moved
    assert says("never_heard_of") == "never heard of: in some place"
    assert says("lora_merge") == "lora merge: in some place"  # with other parameters than those known here


def test_the_layer_map_is_drawn() -> None:
    stacked = [LayerMatch(b, b if b < 3 else b - 1, 1.0) for b in range(5)] + [LayerMatch(5, None, 0.0)]
    assert layer_runs.drawn(stacked, 60) == [
        "B  0-2  3-4  5",
        "   ███  ██   ·  agreement 100 %",
        "A  0-2  2-3  -",
    ]
    assert layer_runs.drawn([LayerMatch(b, b, 0.7) for b in range(2)], 60) == ["B 0-1 = A 0-1  ▓▓  agreement 70 %"]
    assert layer_runs.drawn([LayerMatch(0, None, None)], 60) == []
    shuffled = [LayerMatch(b, 7 * b % 61, 0.2) for b in range(61)]
    lines = layer_runs.drawn(shuffled, 60)
    assert len(lines) <= 3
    assert max(map(len, lines)) <= 60


def run(*arguments: object, **environment: str) -> str:
    result = CliRunner(env=environment).invoke(cli, [str(x) for x in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.stdout


def test_bold_where_it_is_wanted_and_the_word_alone() -> None:
    pair = (DEMO / "parent", DEMO / "parent")
    assert "\x1b[" not in run("compare", *pair)
    assert "\x1b[1;32mIDENTICAL" in run("compare", *pair, FORCE_COLOR="1")
    assert "\x1b[1" in (bold := run("compare", *pair, FORCE_COLOR="1", NO_COLOR="1"))
    assert "32m" not in bold
    assert run("compare", *pair, "-q") == "identical\n"


def test_the_bar_names_what_is_done_and_never_stands_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", shown_on := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
    monkeypatch.setattr("weightprint.report.progress.sys.stderr", shown_on)
    with progress_bar("compare") as progress:
        weightprint.compare(DEMO / "parent", DEMO / "stranger", progress=progress)
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown_on.getvalue())
    phases = [name for name in ("units, heads, channels", "rotations", "weighing") if f"compare: {name}" in drawn]
    assert "weighing" in phases
    assert not re.search(r"(\d+\.?\d*)/\1 [kM]?B", drawn)


# diff


def test_a_diff_is_a_strip_and_the_tensors_that_changed_most() -> None:
    pair = (DEMO / "parent", DEMO / "finetune")
    found = weightprint.diff(*pair)
    lines = run("diff", *pair, COLUMNS="80").splitlines()
    assert len(lines) < 30
    strip = {line[:26].strip(): line[28:33] for line in lines if line.startswith("  ") and "▒" in line[28:33]}
    assert {"q, k, v, gate, up": "▒▒▒▒▒", "o, down": "▒▒▒▓▓"}.items() <= strip.items()
    listed = [line.split()[0] for line in lines if line.startswith(("model.", "lm_head"))]
    rows = sorted(found.table.to_records(), key=lambda row: -row["relative"])
    assert listed == [row["name"] for row in rows[:10]]
    assert "… and 38 more: --tensors lists every one" in lines
    assert lines[-1].startswith("48 changed")
    every = run("diff", *pair, "--tensors")
    assert all(row["name"] in every for row in rows)
    # The cell of a block and role is what its tensors say together.
    (q,) = (row for row in rows if row["role"] == "q" and row["block"] == 3)
    assert (q["stack"], 0.01 <= q["relative"] < 0.1) == ("decoder", True)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_diff_fits_with_bad_names_and_says_first_what_is_no_number(tmp_path: Path, width: int) -> None:
    evil = "evil\x1b[31m<script>\u202e" * 5
    a = {**decoder(0), evil: np.ones((3, 3), np.float32), "x" * 150: np.zeros((2, 4), np.float32)}
    b: dict[str, Array] = {n: x.copy() for n, x in decoder(0).items()} | {evil: np.eye(3, dtype=np.float32)}
    broken = next(n for n in b if "3.mlp.down" in n)
    b[broken][2, 2] = np.nan
    found = weightprint.diff(saved(tmp_path, "a", a), saved(tmp_path, "b", b))
    for ascii in (False, True):
        lines = [line.plain for line in diff_lines(found, Pen(width, ascii))]
        assert max(map(len, lines)) <= width
        assert not ascii or all(line.isascii() for line in lines)
    text = "\n".join(lines)
    assert "\x1b" not in text
    assert "\u202e" not in text
    first = next(line for line in lines if "NaN or Inf" in line)
    assert "down_proj" in first
    assert lines.index(first) == 3
    assert "!" in next(line for line in lines if line.startswith("  down"))


def test_of_many_blocks_a_cell_stands_for_several() -> None:
    columns = {"relative": 0.2, "l2_a": 1.0, "status": "changed", "stack": "decoder", "role": "q", "expert": None}
    from weightprint.report.diff import _strip

    rows = [{**columns, "block": b, "n_nonfinite_a": 0, "n_nonfinite_b": 0} for b in range(200)]
    rows[150]["relative"] = 0.9
    (line,) = _strip(rows, range(200), Pen(80))
    cells = line.plain[26:].split()[0]
    assert len(line.plain) <= 80
    assert cells.count("█") == 1
    assert set(cells) == {"▓", "█"}


# stats


def test_layer_2_stands_before_layer_10_and_what_is_of_one_layer_together(tmp_path: Path) -> None:
    path = saved(tmp_path, "deep", decoder(0, d=16, h=24, layers=12))
    printed = run("stats", path)
    names = [line.split()[0] for line in printed.splitlines()[1:]]
    layers = [int(name.split(".")[2]) for name in names if name.startswith("model.layers.")]
    assert layers == sorted(layers)
    placed = str(weightprint.scan(weightprint.anatomy(path)))
    assert names == [line.split()[0] for line in placed.splitlines()[1 : len(names) + 1]]
    parts = [name.partition("layers.2.")[2] for name in names if "layers.2." in name]
    ends = [part.split(".")[1] for part in parts if part.endswith("_proj.weight")]
    assert ends == [f"{role}_proj" for role in ("q", "k", "v", "o", "gate", "up", "down")]  # as data flows
    assert sorted(names) == sorted(row["name"] for row in weightprint.scan(path).table.to_records())
