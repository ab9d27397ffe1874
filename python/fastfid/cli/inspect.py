"""The command ``inspect``: what a source holds."""

import json
from collections.abc import Sequence

from fastfid.cli.options import add_selection_options, selection_options
from fastfid.cli.output import print_facts
from fastfid.cli.parser import Parser
from fastfid.cli.start import check_exists

__all__ = ["parser", "run"]


def parser() -> Parser:
    """Return the parser of ``fastfid inspect``."""
    made = Parser(
        prog="fastfid inspect",
        usage="fastfid inspect [options] SOURCE",
        description="What a source holds: how many images, their sizes, modes, formats and classes, and what was "
        "passed over and why. No picture is decoded. Of more than 10,000 images, 10,000 headers are read, which a hash "
        "chooses.",
    )
    made.add_argument(
        "source", metavar="SOURCE", help="a folder, .zip, .tar, .parquet, pattern, .npz or .npy, or a URL"
    )
    made.add_argument("--all", action="store_true", help="read the headers of all images")
    made.add_argument("--json", action="store_true", help="print one JSON object (docs/json.md)")
    made.add_argument(
        "--add-reference",
        metavar="NAME",
        help="SOURCE is a statistics file: from now on, records and inspect say NAME where statistics have its numbers",
    )
    add_selection_options(made.add_argument_group("images").add_argument)
    made.set_defaults(labels="auto")
    return made


def run(argv: Sequence[str]) -> int:
    """Run ``fastfid inspect`` with these words."""
    args = parser().parse_args(argv)
    from fastfid.inspection import inspect_features, inspect_source

    check_exists(args.source)
    if (features := inspect_features(args.source, add_reference=args.add_reference)) is not None:
        print_facts(features, in_json=args.json)
        return 0
    found = inspect_source(args.source, all_headers=args.all, **selection_options(args))
    print(json.dumps(found.to_dict(), indent=2, allow_nan=False) if args.json else found.text())
    return 0
