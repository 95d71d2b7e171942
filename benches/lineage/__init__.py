"""The lineage benchmark: small decoders, really trained, whose family tree is known, and pairs made for a purpose.

    zoo           models of known lineage: plans, training, operations, truth
    populations   pairs whose truth is known by their making; folders of real strangers
    score         every method on every pair: records, ranks, rates
    page          docs/lineage.md and its drawings, from the scores
    scale         real models, large shapes, time and memory
    demo_trainer  the four models of `weightprint demo`
    commands      `python -m benches.lineage`, but for those that stand in the folder of their subject
    results       what the page is written from

Training needs the `lineage` extra (JAX). Nothing here ships in the wheel.
"""
