"""Pages to hand on: one self-contained HTML document per result, and the drawings in it."""
