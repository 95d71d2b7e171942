"""The drawing of stacks: what is folded, what is said, and that it fits."""

from __future__ import annotations

import random

import pytest
from fakes import Fake, llama
from weightprint.anatomy.folding import fold
from weightprint.anatomy.geometry import active_experts
from weightprint.anatomy.parameters import parts, stored
from weightprint.anatomy.place import Geometry, Rows
from weightprint.report.drawing import drawing, drawing_html, geometry_words, recognised
from weightprint.report.pen import Pen
from weightprint.util.ranges import spans


def drawn(anatomy, width=100, ascii=False):
    return [line.plain for line in drawing(anatomy, Pen(width, ascii))]


def line_of(lines, role):
    """The one line whose first roles are `role`."""
    (found,) = [line for line in lines if line.lstrip(" │|").startswith(role + " ")]
    return found.lstrip(" │|")


def test_equal_blocks_are_drawn_once():
    lines = drawn(llama(32))
    assert lines[0] == "decoder  recognised as llama by its row of the table"
    assert lines[1] == "32 blocks, hidden 64, 4 heads of 16, 2 key-value heads, FFN 96, vocabulary 1,000"
    assert lines[3:] == [
        "    embedding   1000×64  BF16  model.embed_tokens",
        "  ┌ blocks 0–31  model.layers.{b}.  32 × 30.8 K = 987 K",
        "  │ attn_norm        64  BF16  input_layernorm",
        "  │ q             64×64  BF16  self_attn.q_proj",
        "  │ k, v          32×64  BF16  self_attn.{k,v}_proj",
        "  │ o             64×64  BF16  self_attn.o_proj",
        "  │",
        "  │ ffn_norm         64  BF16  post_attention_layernorm",
        "  │ gate, up      96×64  BF16  mlp.{gate,up}_proj",
        "  │ down          64×96  BF16  mlp.down_proj",
        "  └",
        "    final_norm       64  BF16  model.norm",
        "    head        1000×64  BF16  lm_head",
        "",
    ]


def test_a_lost_shard_shows():
    fake = llama(8, skip=((5, "v"), (5, "o"), (5, "down")))
    lines = drawn(fake)
    assert [line.split("  ")[1] for line in lines if "┌" in line] == ["┌ blocks 0–4, 6–7", "┌ block 5"]
    assert "  │ ! lacks v, o, down" in lines
    # Whole blocks: the geometry knows how many there are.
    fake = llama(8)
    fake.assignments = [a for a in fake.assignments if a.place.block not in (3, 6, 7)]
    assert "  ! no tensor of blocks 3, 6–7" in drawn(fake)
    assert fold(fake)[0].absent == (3, 6, 7)


def test_a_block_with_roles_of_its_own_lacks_nothing():
    fake = llama(3, skip=((2, "gate"), (2, "up"), (2, "down")))
    for e in range(4):
        for role in ("gate", "up"):
            fake.put(role, f"model.layers.2.mlp.experts.{e}.{role}_proj.weight", 24, 64, block=2, expert=e)
        fake.put("down", f"model.layers.2.mlp.experts.{e}.down_proj.weight", 64, 24, block=2, expert=e)
    fake.put("router", "model.layers.2.mlp.gate.weight", 4, 64, block=2)
    lines = drawn(fake)
    assert not any("lacks" in line for line in lines)
    assert "  │ attention as in blocks 0–1" in lines
    assert any("gate, up    ×4" in line and "mlp.experts.{e}.{gate,up}_proj" in line for line in lines)


def test_alternating_blocks_and_shared_experts():
    fake = Fake("moe", decoder=Geometry(8, experts=6))
    for b in range(8):
        fake.put("q", f"h.{b}.q.weight", 64, 64, block=b)
        if b % 2:
            fake.put("up", f"h.{b}.shared.up.weight", 48, 64, block=b, expert="shared")
            for e in range(6):
                fake.put("up", f"h.{b}.experts.{e}.up.weight", 24, 64, block=b, expert=e)
        else:
            fake.put("up", f"h.{b}.up.weight", 96, 64, block=b)
    even, odd = fold(fake)[0].runs
    assert (even.blocks, odd.blocks) == ((0, 2, 4, 6), (1, 3, 5, 7))
    assert [(line.roles, line.shared, line.n_experts) for line in odd.lines] == [
        (("q",), False, None),
        (("up",), True, None),
        (("up",), False, 6),
    ]
    assert any("┌ blocks 1, 3, …, 7" in line for line in drawn(fake))
    assert odd.n_parameters == 4 * (64 * 64 + 48 * 64 + 6 * 24 * 64)


def test_missing_experts_are_counted():
    fake = Fake("moe", decoder=Geometry(2, experts=8))
    for b in range(2):
        for e in range(8):
            if (b, e) != (1, 5):
                fake.put("up", f"h.{b}.experts.{e}.up.weight", 24, 64, block=b, expert=e)
    lines = drawn(fake)
    assert any("×7 of 8" in line for line in lines)
    assert any("×8 " in line for line in lines)


def test_fused_turned_biased_and_grouped():
    fake = Fake("fused", decoder=Geometry(2))
    for b in range(2):
        for k, role in enumerate(("q", "k", "v")):
            rows = Rows(64 * k, 64)
            fake.put(role, f"h.{b}.attn.c_attn.weight", 64, 64, block=b, turned=True, rows=rows, stored=(64, 192))
            fake.put(role + "_bias", f"h.{b}.attn.c_attn.bias", 64, block=b, rows=rows, stored=(192,))
        fake.put("o", f"h.{b}.attn.c_proj.weight", 64, 64, block=b, turned=True)
        fake.put("up", f"h.{b}.mlp.gate_up.weight", 96, 64, block=b, rows=Rows(1, 1, 2, 96), stored=(192, 64))
        fake.put("gate", f"h.{b}.mlp.gate_up.weight", 96, 64, block=b, rows=Rows(0, 1, 2, 96))
        fake.put("down", f"h.{b}.mlp.down.weight", 64, 96, block=b)
    lines = drawn(fake)
    assert line_of(lines, "q, k, v +bias") == "q, k, v +bias  64×64  BF16  attn.c_attn  fused, turned"
    assert line_of(lines, "o").endswith("attn.c_proj  turned")
    assert line_of(lines, "gate, up").endswith("mlp.gate_up  fused, in turn")


def test_lines_of_one_weight_are_tied_together():
    """Grouped-query attention: q and k, v have other shapes, but are one weight."""
    fake = Fake("fused", decoder=Geometry(1))
    for role, start, length in (("q", 0, 32), ("k", 32, 16), ("v", 48, 16)):
        shape = (64, 64) if role == "q" else (32, 64)
        rows = Rows(start, length, 64, 2)
        fake.put(role, "h.0.wqkv.weight", *shape, block=0, rows=rows, stored=(128, 64))
    lines = drawn(fake)
    assert line_of(lines, "q").endswith("┐ wqkv  fused, per head")
    assert line_of(lines, "k, v").endswith("32×64  BF16  ┘")
    ascii = drawn(fake, ascii=True)
    assert line_of(ascii, "q").endswith("\\ wqkv  fused, per head")


def test_quantised_and_mixed_types():
    fake = llama(4, dtype="I4", scheme="gptq", bits=4)
    fake.weights["model.layers.2.mlp.down_proj.weight"].dtype = "I8"
    lines = drawn(fake)
    assert "I4 gptq" in line_of(lines, "q")
    assert line_of(lines, "down").endswith("mlp.down_proj  I8 gptq in 2")
    assert len([line for line in lines if "┌" in line]) == 1
    kinds = {s.kind: s for s in stored(fake)}
    assert set(kinds) == {"BF16", "I4 gptq", "I8 gptq"}
    assert kinds["I4 gptq"].bits == 4
    assert sum(s.n_parameters for s in kinds.values()) == sum(w.numel for w in fake.weights.values())


def test_tied_head_and_what_the_architecture_sets():
    fake = llama(2)
    fake.assignments.pop()
    fake.put("head", "model.embed_tokens.weight", 1000, 64, tied=True)
    for b in range(2):
        fake.put("fixed", f"model.layers.{b}.self_attn.rotary_emb.inv_freq", 8, block=b, dtype="F32")
        fake.put("fixed", f"model.layers.{b}.self_attn.bias", 1, 1, 128, 128, block=b, dtype="BOOL")
    lines = drawn(fake)
    assert line_of(lines, "embedding").endswith("model.embed_tokens")
    assert line_of(lines, "head").endswith("model.embed_tokens  tied")
    assert line_of(lines, "fixed").split()[1:] == ["self_attn.{rotary_emb.inv_freq,bias}"]
    assert fold(fake)[0].runs[0].n_parameters == fold(llama(2))[0].runs[0].n_parameters


def test_inferred_tensors_say_how_surely():
    fake = Fake(None, decoder=Geometry(3, hidden=64, guessed=("heads", "head_dim")))
    words = [f"x{random.Random(7).getrandbits(40):x}{k}" for k in range(6)]
    for b in range(3):
        fake.put("up", words[b], 96, 64, block=b, inferred=0.9)
        fake.put("down", words[3 + b], 64, 96, block=b, inferred=0.5 + b / 10)
    lines = drawn(fake)
    assert lines[0] == "decoder  no row of the table fits; inferred, confidence 0.50 to 0.90"
    assert "guessed, not certain: heads, head size" in lines
    assert line_of(lines, "down").endswith("inferred 0.50")
    assert not any(word in line for line in lines for word in words)
    fake.families = llama(1).families
    fake.put("q", "q", 64, 64, block=0)
    assert recognised(fake, "decoder") == "recognised as llama; 6 of 7 inferred, confidence 0.50 to 0.90"


def test_stacks_stand_in_the_order_of_data():
    fake = Fake("clip", decoder=Geometry(1), vision=Geometry(1), projector=Geometry(0))
    for stack in ("decoder", "vision"):
        fake.put("q", f"{stack}.0.q.weight", 8, 8, block=0, stack=stack)
    fake.put("projector", "mm.weight", 8, 8, stack="projector")
    assert [line.split()[0] for line in drawn(fake) if line[:1].isalpha() and "recognised" in line] == [
        "vision",
        "decoder",
        "projector",
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_fits_the_terminal(width):
    fake = llama(3, skip=tuple((1, role) for role in ("q", "k", "v", "o", "gate", "up", "down")))
    for e in range(128):
        fake.put("up", f"model.layers.2.mlp.a_very_long_module_name.{e}.up.weight", 9, 9, block=2, expert=e)
    assert max(len(line) for line in drawn(fake, width)) <= width


def test_ascii_where_the_terminal_has_no_more():
    fake = llama(6, skip=((2, "q"),))
    for line in drawn(fake, ascii=True):
        line.encode("ascii")


def test_names_are_escaped():
    fake = llama(1)
    fake.put("o_bias", "model.layers.0.\x1b[31m<b>\u202e.bias", 64, block=0)
    fake.put("pooler", "evil\x1b[2J<script>", 8, 8)
    text = "\n".join(drawn(fake))
    assert "\x1b" not in text
    assert "evil\\u{1b}[2J<script>" in text
    html = drawing_html(fake)
    assert "<script>" not in html
    assert "evil\\u{1b}[2J&lt;script&gt;" in html
    assert "self_attn.{k,v}_proj" in html


def test_spans():
    assert spans([3]) == "3"
    assert spans([4, 1, 2, 3]) == "1–4"
    assert spans([0, 1]) == "0–1"
    assert spans([0, 3, 6]) == "0, 3, 6"
    assert spans([0, 2, 4, 6, 8]) == "0, 2, …, 8"
    assert spans([0, 1, 2, 7, 9, 10]) == "0–2, 7, 9–10"
    assert spans([0, 2, 3, 5, 6, 8, 9, 11, 12, 14]) == "0, 2–3, 5–6, 8–9, 11–12, …"


def test_geometry_in_words():
    mla = Geometry(61, 7168, 128, 128, 192, 2048, 256, 129280, 128, 128, 64)
    assert geometry_words(mla) == (
        "61 blocks, hidden 7,168, 128 heads of 192 (128 + 64 rotary), values of 128, FFN 2,048, 256 experts, "
        "vocabulary 129,280"
    )
    assert geometry_words(Geometry(1)) == "1 block"


def test_parameters_by_part_and_what_a_token_uses():
    config = {"text_config": {"num_experts_per_tok": 2}}
    fake = Fake("moe", config, decoder=Geometry(2, experts=8))
    fake.put("embedding", "e.weight", 100, 10)
    fake.put("head", "e.weight", 100, 10, tied=True)
    for b in range(2):
        fake.put("q", f"h.{b}.q.weight", 10, 10, block=b)
        fake.put("up", f"h.{b}.shared.up.weight", 20, 10, block=b, expert="shared")
        for e in range(8):
            fake.put("up", f"h.{b}.{e}.up.weight", 5, 10, block=b, expert=e)
    fake.weight("strange", (7, 3))
    fake.unmapped = ["strange"]
    assert {(p.part, p.n_weights, p.n_parameters, p.n_active) for p in parts(fake)} == {
        ("embedding", 1, 1000, 1000),
        ("ffn", 18, 1200, 600),
        ("attention", 2, 200, 200),
        ("unmapped", 1, 21, 21),
    }
    assert active_experts(config, "decoder") == 2
    fake.checkpoint.config = {}
    assert {p.part: p.n_active for p in parts(fake)}["ffn"] is None
    assert all(p.n_active is None for p in parts(llama(2)))


def test_a_stack_stored_behind_another_one():
    """Multi-token prediction: its block 0 is layer 61 in the names."""
    fake = Fake("deepseek", mtp=Geometry(1))
    for role, module in (("mtp_projection", "eh_proj"), ("q", "self_attn.q_proj")):
        fake.put(role, f"model.layers.61.{module}.weight", 8, 8, block=0, stack="mtp")
    (run,) = fold(fake)[0].runs
    assert run.prefix == "model.layers.{b+61}."
    assert [line.name for line in run.lines] == ["eh_proj", "self_attn.q_proj"]
