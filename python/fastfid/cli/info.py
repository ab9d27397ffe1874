"""The command ``info``: facts of the build and of this machine."""

from collections.abc import Sequence

from fastfid.cli.output import print_facts
from fastfid.cli.parser import Parser

__all__ = ["parser", "run"]


def parser() -> Parser:
    """Return the parser of ``fastfid info``."""
    made = Parser(prog="fastfid info", description="Facts of the build and of this machine, for a bug report.")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def run(argv: Sequence[str]) -> int:
    """Run ``fastfid info`` with these words."""
    args = parser().parse_args(argv)
    from fastfid.info import gather

    print_facts(gather(), in_json=args.json)
    return 0
