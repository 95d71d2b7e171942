"""Every result shows itself as text and as HTML, whatever its tensors and files are called."""

from __future__ import annotations

import pkgutil
from html.parser import HTMLParser
from importlib import import_module

import numpy as np
import pytest
import weightprint
from weightprint.results.shown import Shown

EVIL = "evil\x1b[31m<script>alert('1')</script>&\u202e"
rng = np.random.default_rng(8)


def decoder():
    tensors = {"model.embed_tokens.weight": rng.normal(size=(40, 16))}
    for b in range(2):
        for name, shape in (("self_attn.q_proj", (16, 16)), ("mlp.up_proj", (32, 16)), ("mlp.down_proj", (16, 32))):
            tensors[f"model.layers.{b}.{name}.weight"] = rng.normal(size=shape)
    return {name: values.astype(np.float32) for name, values in tensors.items()}


@pytest.fixture
def model(save, monkeypatch):
    """A small model in a file, beside whose tensors one of NaN lies, all called something evil. Its path is relative:
    a long one is shortened on a screen."""
    odd = {EVIL: np.full((5, 4, 3), np.nan, np.float32)}
    path = save(f"{EVIL.replace('/', '')}/model.safetensors", decoder() | odd, {EVIL: EVIL})
    monkeypatch.chdir(path.parent.parent)
    return path.relative_to(path.parent.parent)


@pytest.fixture
def lora(save):
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    factors = {f"{module}.lora_{s}.weight": np.ones(shape, np.float32) for s, shape in (("A", (2, 16)), ("B", (16, 2)))}
    path = save("lora/adapter_model.safetensors", factors)
    (path.parent / "adapter_config.json").write_text('{"r": 2, "lora_alpha": 4}')
    return path.parent


def diff(model, lora, save):
    return weightprint.diff(model, save("other.safetensors", decoder() | {EVIL + "b": np.ones((2, 2), np.float32)}))


TEXT = {
    "div", "table", "caption", "thead", "tbody", "tr", "th", "td", "p", "ul", "li", "h3", "dl", "dt", "dd", "span",
    "pre",
}  # fmt: skip
DRAWINGS = {
    "style", "figure", "figcaption", "svg", "defs", "pattern", "path", "text", "title", "line", "rect", "circle",
}  # fmt: skip
#: One of each kind, made from the fixtures.
EXAMPLES = {
    "Checkpoint": lambda model, lora, save: weightprint.open(model),
    "Anatomy": lambda model, lora, save: weightprint.anatomy(model),
    "Merged": lambda model, lora, save: weightprint.merge_adapter(model, lora),
    "Scan": lambda model, lora, save: weightprint.scan(model, rows=True),
    "StatsTable": lambda model, lora, save: weightprint.scan(model).table,
    "CheckReport": lambda model, lora, save: weightprint.check(model),
    "Diff": diff,
    "Comparison": lambda model, lora, save: weightprint.compare(model, model),
    "Lineage": lambda model, lora, save: weightprint.lineage([model, f"{model}+{lora}"]),
    "Recipe": lambda model, lora, save: weightprint.recipe(model, [model]),
    "Fingerprint": lambda model, lora, save: weightprint.fingerprint(model),
}
#: More of them, with less in them or with more.
VARIANTS = {
    "pooled": lambda model, lora, save: weightprint.scan(weightprint.anatomy(model)).by("stack", "part"),
    "a diff's table": lambda *fixtures: diff(*fixtures).table,
    "columns": lambda model, lora, save: weightprint.scan(model).table.select(["name", "shape", "first_nan"]),
    "no rows": lambda model, lora, save: weightprint.scan(model).table.take([]),
    "no map": lambda model, lora, save: weightprint.anatomy(save("x.safetensors", {EVIL: np.ones(3, np.float32)})),
    "no tensor": lambda model, lora, save: weightprint.open(save("empty.safetensors", {})),
    "the same": lambda model, lora, save: weightprint.diff(model, model),
}


def kinds(cls=Shown):
    for sub in cls.__subclasses__():
        yield sub
        yield from kinds(sub)


def test_no_kind_is_left_out():
    for module in pkgutil.walk_packages(weightprint.__path__, "weightprint."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    # dataclass(slots=True) makes the class anew and leaves the first one behind.
    assert {cls.__name__ for cls in kinds()} == set(EXAMPLES)


class Reader(HTMLParser):
    """Collects what a browser would show; an element that is closed wrongly or never fails."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.text, self.tags = [], "", set()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_reader_sees_what_is_not_well_formed():
    for text in ("<p><b></p></b>", "<p>", "</p>"):
        with pytest.raises((AssertionError, IndexError)):
            Reader(text)


@pytest.mark.parametrize("kind", [*EXAMPLES, *VARIANTS])
def test_every_kind_shows_itself_both_ways(kind, model, lora, save):
    result = (EXAMPLES | VARIANTS)[kind](model, lora, save)
    text, html = str(result), result._repr_html_()
    assert text.strip()
    assert text.endswith("\n")
    assert "\x1b" not in text
    assert "\u202e" not in text
    read = Reader(html)
    assert read.text.strip()
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert read.tags <= TEXT | DRAWINGS
    if kind in EXAMPLES:
        assert "evil" in text
        assert "evil" in read.text
    if hasattr(result, "close"):
        result.close()
        assert "closed" in str(result)
        assert "closed" in Reader(result._repr_html_()).text
    assert len(repr(result)) < 600
    assert repr(result).startswith("<")
