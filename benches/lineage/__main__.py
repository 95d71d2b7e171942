"""The lineage benchmark; run it from the repository's root. `COMMAND --help` says more."""

import argparse
from functools import partial
from pathlib import Path

from .commands import bands, build, calibrate, direction, merges, new_operations, score, trees
from .demo_trainer import demo_models
from .populations import populations, real_strangers
from .scale import big_shapes, budget, real_scale


def main() -> None:
    one_line_each = partial(argparse.HelpFormatter, max_help_position=20, width=100)
    parser = argparse.ArgumentParser("python -m benches.lineage", description=__doc__, formatter_class=one_line_each)
    commands = parser.add_subparsers(required=True, metavar="COMMAND ARGUMENT")
    demo = commands.add_parser("demo-models", help="train the models of `weightprint demo` (10 minutes)")
    demo.add_argument("names", nargs="*", metavar="NAME", help="default: all four")
    demo.add_argument("--output", type=Path, default=Path("target/lineage"), help="where to build them (%(default)s)")
    demo.add_argument("--install", action="store_true", help="then copy the four into python/weightprint/demo/models")
    demo.set_defaults(run=_demo_models)
    build.add_command(commands)
    score.add(commands)
    calibrate.add(commands)
    populations.add(commands)
    real_strangers.add(commands)
    direction.add(commands)
    merges.add(commands)
    trees.add(commands)
    bands.add(commands)
    new_operations.add(commands)
    real_scale.add_command(commands)
    big_shapes.add_command(commands)
    budget.add_command(commands)
    args = parser.parse_args()
    args.run(args)


def _demo_models(args: argparse.Namespace) -> None:
    unknown = [name for name in args.names if name not in demo_models.PLANS]
    if unknown:
        raise SystemExit(f"no model {unknown[0]!r}; there are: {', '.join(demo_models.PLANS)}")
    demo_models.build(args.names or list(demo_models.PLANS), args.output)
    if args.install:
        demo_models.install(args.output, Path("python/weightprint/demo/models"))


if __name__ == "__main__":
    main()
