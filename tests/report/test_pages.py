"""Pages as a reader opens them: in Chromium, wide and narrow, light and dark, printed, with names that mean harm."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import weightprint
from browser import LOOK, Browser, started
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file
from weightprint.cli import cli
from weightprint.demo import demo_models

EVIL = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>",
    '"><svg onload=alert(3)><a href="javascript:alert(4)">',
    "\x1b[31mred\x1b[0m\u202egnirts\u2066",
    "{{ 7 * 7 }}{% raw %}](https://evil.example)`|**bold**\n# title",
    'x"] --> y["<b>z</b>"]; click x "https://evil.example"',
)
COMPARED = ("finetune", "moe", "stranger", "parent")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    here = started(tmp_path_factory.mktemp("profile"))
    yield here
    here.close()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo_models.write(tmp_path_factory.mktemp("demo") / "models")


def run(*arguments: object) -> Any:
    result = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert result.exit_code in (0, 1), result.output
    return result


@pytest.fixture(scope="module")
def pages(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("pages")
    for name in COMPARED:
        run("compare", demo / "parent", demo / name, "-o", out / f"{name}.html", "--plots", out / "plots")
    run("diff", demo / "parent", demo / "moe", "-o", out / "diff.html")
    run("check", demo / "moe", "-o", out / "check.html")
    run("inspect", demo / "moe", "--tensors", "-o", out / "inspect.html")
    run("stats", demo / "moe", "-o", out / "stats.html")
    run("recipe", demo / "finetune", demo / "parent", demo / "stranger", "-o", out / "recipe.html")
    run("fingerprint", demo / "finetune", "-o", out / "finetune.fp")
    run("inspect", out / "finetune.fp", "-o", out / "fingerprint.html")
    weightprint.lineage([demo / name for name in COMPARED]).save(out / "lineage.html")
    return {path.stem: path for path in sorted(out.glob("*.html"))}


PAGES = (*COMPARED, "diff", "check", "inspect", "stats", "recipe", "fingerprint", "lineage")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_quietly_and_fits(
    browser: Browser, pages: dict[str, Path], name: str, width: int, dark: bool
) -> None:
    seen = browser.open(pages[name], width, dark=dark)
    assert seen.messages == []
    assert seen.requests == [pages[name].as_uri()]
    assert seen.look == {"out": [], "low": [], "wide": 0}
    paper = browser.evaluate("getComputedStyle(document.querySelector('main')).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper))) < 150) == dark


def test_the_look_sees_what_is_wrong(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "x.html"
    path.write_text(
        "<!doctype html><body style='margin:0'><p style='white-space:nowrap'>" + "wide " * 200 + "</p>"
        "<p style='color:#999'>pale</p><script>console.error('no')</script><img src='http://127.0.0.1:9/x.png'>"
    )
    seen = browser.open(path, 390)
    assert seen.look["wide"] > 0
    assert len(seen.look["out"]) == 1
    assert [text for text, *_ in seen.look["low"]] == ["pale"]
    assert len(seen.requests) == 2
    assert any("no" in message for message in seen.messages)


@pytest.mark.parametrize("size", [(8.27, 11.69), (8.5, 11.0)], ids=["A4", "Letter"])
def test_a_page_prints(browser: Browser, pages: dict[str, Path], size: tuple[float, float]) -> None:
    browser.open(pages["moe"], dark=True)
    dark = {"name": "prefers-color-scheme", "value": "dark"}
    browser.ask("Emulation.setEmulatedMedia", media="print", features=[dark])
    assert browser.evaluate(LOOK)["low"] == []
    pdf = browser.printed(*size)
    assert pdf.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 8


def test_a_page_is_one_file_without_script(pages: dict[str, Path]) -> None:
    for path in pages.values():
        text = path.read_text()
        assert "Content-Security-Policy" in text
        assert "default-src 'none'" in text
        assert not re.search(r"<(script|link|iframe|object|img|a)\b|@import|url\((?!#)", text)
        assert "://" not in text
        assert len(text) < 200_000


def test_drawings_are_files_of_their_own(browser: Browser, pages: dict[str, Path]) -> None:
    plots = sorted((pages["moe"].parent / "plots").glob("*.svg"))
    assert {"map", "evidence", "curve-q", "curve-norm", "direction"} <= {p.stem for p in plots} | {"curve-norm"}
    for path in plots:
        seen = browser.open(path, 800)
        assert seen.messages == []
        assert len(seen.requests) == 1
        assert browser.evaluate("document.documentElement.tagName") == "svg"


def evil_model(seed: int) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    tensors = {name: rng.normal(size=(24, 16)) for name in EVIL}
    tensors[EVIL[0] + "nan"] = np.full((4, 4), np.nan)
    tensors["model.embed_tokens.weight"] = rng.normal(size=(40, 16))
    for b in range(4):
        shapes = {f"self_attn.{k}_proj": (16, 16) for k in "qkvo"}
        shapes |= {"mlp.gate_proj": (32, 16), "mlp.up_proj": (32, 16), "mlp.down_proj": (16, 32)}
        tensors |= {f"model.layers.{b}.{k}.weight": rng.normal(size=s) for k, s in shapes.items()}
    return {name: values.astype(np.float32) for name, values in tensors.items()}


@pytest.fixture
def evil(save: Any, tmp_path: Path) -> tuple[Path, Path]:
    first = save(f"{EVIL[0].replace('/', '')}/model.safetensors", evil_model(0), {EVIL[1]: EVIL[2]})
    changed = {name: values + np.float32(0.01) for name, values in evil_model(0).items()}
    return first, save("b.safetensors", changed)


def test_names_stay_text(browser: Browser, evil: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = evil
    verbs = {"compare": (a, b), "diff": (a, b), "check": (a,), "inspect": (a,), "stats": (a,), "recipe": (b, a)}
    for verb, models in verbs.items():
        page = tmp_path / f"{verb}.html"
        run(verb, *models, "-o", page)
        seen = browser.open(page, 390)
        assert seen.messages == []
        assert len(seen.requests) == 1
        assert seen.look["out"] == []
        assert browser.evaluate("document.querySelectorAll('script, img, a, b, svg[onload], [onerror]').length") == 0
        text = page.read_text()
        assert not re.search("[\x00-\x08\x0b-\x1f\u202e\u2066]", text)
        shown = browser.evaluate("document.body.innerText")
        assert "<script>alert(1)" in shown
        if verb in ("diff", "inspect", "stats"):
            assert "{{ 7 * 7 }}" in shown


def test_names_stay_text_in_drawings_and_statements(evil: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = evil
    run("compare", a, b, "--plots", tmp_path / "plots", "--attest", tmp_path / "x.json")
    drawn = sorted((tmp_path / "plots").glob("*.svg"))
    assert drawn
    for path in drawn:
        tags = {element.tag.rpartition("}")[2] for element in ElementTree.parse(path).iter()}
        assert tags <= {"svg", "style", "defs", "pattern", "path", "rect", "text", "line", "circle", "title"}
    for path in (*drawn, tmp_path / "x.json", tmp_path / "x.cdx.json"):
        assert not re.search("[\x00-\x08\x0b-\x1f\u202e\u2066]", path.read_text())
    for name in ("x.json", "x.cdx.json"):
        assert json.loads((tmp_path / name).read_text())


def test_a_recipe_is_drawn_and_its_configuration_keeps_its_lines(demo: Path, tmp_path: Path) -> None:
    a, b = (load_file(demo / name / "model.safetensors") for name in ("parent", "stranger"))
    (tmp_path / "mixed").mkdir()
    mixed = {name: (0.75 * a[name].astype(np.float32) + 0.25 * b[name].astype(np.float32)) for name in a}
    save_file(mixed, tmp_path / "mixed" / "model.safetensors")
    run("recipe", tmp_path / "mixed", demo / "parent", demo / "stranger", "-o", tmp_path / "x.html")
    text = (tmp_path / "x.html").read_text()
    assert "merge_method: linear\nmodels:\n" in text
    widths = {kind: float(x) for x, kind in re.findall(r'width="([\d.]+)%" height="[\d.]+" class="mix (mix\d)"', text)}
    widths |= {kind: float(x) for kind, x in re.findall(r'class="mix (mix\d)"[^>]*? width="([\d.]+)%"', text)}
    assert widths["mix1"] == pytest.approx(3 * widths["mix2"], rel=0.02)


def test_names_stay_text_in_markdown(evil: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = evil
    for verb, models in {"compare": (a, b), "diff": (a, b), "check": (a,), "inspect": (a,)}.items():
        path = tmp_path / f"{verb}.md"
        run(verb, *models, "-o", path)
        text = path.read_text()
        assert len(text.splitlines()) <= 60
        assert not re.search("[\x00-\x08\x0b-\x1f\u202e\u2066]", text)
        assert verb != "diff" or "evil" in text
        drawn = re.findall(r"```mermaid\n(.*?)```", text, re.S)
        outside = re.sub(r"```mermaid\n.*?```", "", text, flags=re.S)
        assert not re.search(r"(?<!\\)<[a-zA-Z/!]", outside)
        assert not re.search(r"(?<!\\)\]\(", outside)
        assert not re.search(r"(?<!\\)://", outside)
        assert "click" not in "".join(drawn)
        assert "evil" not in "".join(drawn)


def test_the_markdown_of_a_comparison_holds_the_map(demo: Path, tmp_path: Path) -> None:
    run("compare", demo / "parent", demo / "moe", "-o", tmp_path / "x.md")
    text = (tmp_path / "x.md").read_text()
    assert text.startswith("## Shared origin\n")
    assert 'a0["A 0–4"] -- "83%" --> b0["B 0–4"]' in text
    assert weightprint.compare(demo / "parent", demo / "moe").a.digest in text
    assert "To repeat it" in text


def test_pages_of_many_tensors_stay_small_and_count_what_they_leave_out(tmp_path: Path) -> None:
    """Five thousand tensors: 16 layers of 100 experts."""
    rng, tensors = np.random.default_rng(0), {"model.embed_tokens.weight": np.ones((8, 4), np.float32)}
    tensors["lm_head.weight"] = np.ones((8, 4), np.float32)
    for layer in range(16):
        at = f"model.layers.{layer}."
        tensors |= {f"{at}self_attn.{k}_proj.weight": np.ones((4, 4), np.float32) for k in "qkvo"}
        for expert in range(100):
            for k, shape in (("gate", (2, 4)), ("up", (2, 4)), ("down", (4, 2))):
                values = rng.normal(size=shape).astype(np.float32)
                tensors[f"{at}mlp.experts.{expert}.{k}_proj.weight"] = values
    for name, by in (("a", 0.0), ("b", 0.01)):
        (tmp_path / name).mkdir()
        save_file({n: x + np.float32(by) for n, x in tensors.items()}, tmp_path / name / "model.safetensors")
    a, b, n = tmp_path / "a", tmp_path / "b", len(tensors)
    listed = {"diff": ((a, b), 1500), "inspect": ((a, "--tensors"), 1000), "stats": ((a,), 1500)}
    for verb, (arguments, rows) in listed.items():
        page = tmp_path / f"{verb}.html"
        run(verb, *arguments, "-o", page)
        assert len(page.read_text()) < 400_000
        assert f"and {n - rows:,} more" in page.read_text()
    run("diff", a, b, "-o", tmp_path / "x.md")
    assert f"and {n - 40:,} more" in (tmp_path / "x.md").read_text()
