"""The command ``compare``: which of several sets is closer to a reference."""

import json
from collections.abc import Sequence
from typing import Any

from fastfid.cli.options import (
    add_force_option,
    add_output_options,
    add_source_options,
    add_store_option,
    fid_options,
    superfluous,
)
from fastfid.cli.output import remark
from fastfid.cli.parser import Parser, metrics
from fastfid.cli.start import check_exists, parse, prepare, show_warnings, will_read

__all__ = ["parser", "run"]


def parser() -> Parser:
    """Return the parser of ``fastfid compare``."""
    made = Parser(
        prog="fastfid compare",
        usage="fastfid compare [options] REFERENCE CANDIDATE CANDIDATE ...\n"
        "       fastfid compare [--json] FILE.jsonl ...",
        description="The FID of each candidate to one reference with its standard error, best first, and for every two "
        "candidates whether the difference can be told from sampling noise. Of two equal candidates, a verdict calls "
        "one better in at most 1 % of the cases. The noise of the reference is shared and cancels.",
        epilog="""\
examples:
  fastfid compare real.npz run-a/ run-b/           two generators
  fastfid compare real/ step-*.npz --json          any number, folders or statistics
  fastfid compare results.jsonl                    what --append has kept; the reference's noise does not cancel
""",
    )
    made.add_argument(
        "path",
        nargs="*",
        metavar="PATH",
        help="the reference, then two candidates or more: images or statistics; or files of records",
    )
    made.add_argument(
        "--records", nargs="+", metavar="FILE", help="compare records that --json printed or --append wrote"
    )
    made.add_argument(
        "--metrics",
        type=metrics,
        metavar="NAMES",
        help="these metrics of each candidate, as a table in the order given; as in: fastfid --metrics",
    )
    made.add_argument("--json", action="store_true", help="print one JSON object (docs/json.md)")
    add_store_option(made)
    add_force_option(made)
    add_output_options(made)
    add_source_options(made)
    return made


def run(argv: Sequence[str]) -> int:
    """Run ``fastfid compare`` with these words."""
    of_command = parser()
    args = parse(of_command, argv)
    if not args.records and args.path and all(path.endswith((".json", ".jsonl")) for path in args.path):
        args.records, args.path = args.path, []
    if args.store and not args.metrics:
        of_command.error("--store: is for --metrics NAMES, such as --metrics fid,kid")
    if args.records and args.metrics:
        of_command.error("--records: have metrics of their own; leave out --metrics")
    if args.records and args.path:
        of_command.error("--records: takes no other paths")
    if not args.records and len(args.path) < 3:
        of_command.error("a reference and two candidates or more are needed")
    from fastfid.evaluation.compared_metrics import compare_metrics
    from fastfid.evaluation.comparison import compare
    from fastfid.evaluation.stored import compare_records

    found: Any
    if args.records:
        show_warnings(args)
        found = compare_records(args.records)
    else:
        for path in args.path:
            check_exists(path)
        reads_images = will_read(args, args.path)
        prepare(args, reads_images)
        reference, *candidates = args.path
        options = {"force": args.force, **fid_options(args, reads_images=reads_images)}
        if args.metrics:
            found = compare_metrics(reference, candidates, metrics=args.metrics, store=args.store, **options)
        else:
            found = compare(reference, candidates, **options)
        if not reads_images:
            remark(superfluous(of_command, args))
    for line in _remarks_of_comparison(found):
        remark(line)
    print(json.dumps(found.to_dict(), indent=2, allow_nan=False) if args.json else found.table())
    return 0


def _remarks_of_comparison(found: Any) -> list[str]:
    if hasattr(found, "note"):  # of the FID alone
        return [found.note] if found.note else []
    return [f"{name}: not computed: {reason}" for name, reason in found.missing.items()]
