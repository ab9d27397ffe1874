"""The command ``report``: an HTML page of two sets of images, or of the records of several runs."""

import argparse
from collections.abc import Sequence

from fastfid.cli.options import (
    add_force_option,
    add_output_options,
    add_source_options,
    fid_options,
    with_labels_of_each,
)
from fastfid.cli.output import print_values, remark
from fastfid.cli.parser import Parser, at_least, metrics
from fastfid.cli.start import check_exists, parse, prepare, show_warnings, will_read
from fastfid.metrics import ALL

__all__ = ["parser", "run"]

# The cache keeps statistics, and a report needs the rows. It is of one network.
_NOT_OF_A_REPORT = ("--cache", "--cache-hashes")


def parser() -> Parser:
    """Return the parser of ``fastfid report``."""
    made = Parser(
        prog="fastfid report",
        usage="fastfid report [options] REAL GENERATED -o FILE.html\n"
        "       fastfid report RECORDS.jsonl ... -o FILE.html",
        description="Write one HTML file that shows what the FID of two sets is made of: every metric with its "
        "standard error, the FID against the number of images, sheets of images (those that raise the FID most, that "
        "are unlike any real one, real ones that are not covered, near-duplicates), each with its nearest neighbours, "
        "a table of the classes, the directions that differ, and what the sources hold. The file refers to nothing "
        "outside of it. Needs Jinja2 and matplotlib: pip install '.[report]' in fastfid's source folder.",
        epilog="""\
examples:
  fastfid report real/ generated/ -o report.html
  fastfid report real/ generated/ -o report.html --store features/   keeps the features: a second report takes seconds
  fastfid report real.zip generated.zip -o report.html --labels auto   with a table of the classes
  fastfid report run-a.jsonl run-b.jsonl -o runs.html              what --append has kept, against step or time
""",
    )
    made.add_argument("path", nargs="+", metavar="PATH", help="the real set and the generated one; or files of records")
    made.add_argument("-o", "--output", metavar="FILE", required=True, help="the HTML file to write")
    made.add_argument("--overwrite", action="store_true", help="replace FILE if it exists; else that is an error")
    made.add_argument(
        "--pictures", type=at_least(1), default=12, metavar="N", help="images of a sheet, up to 100; default: 12"
    )
    made.add_argument(
        "--metrics",
        type=metrics,
        metavar="NAMES",
        help="metrics with commas between, or all; default: fid,fid-infinity,kid,prdc,mifid as far as they can be "
        "computed; of records, those to draw",
    )
    made.add_argument(
        "--store",
        metavar="DIR",
        help="keep the features of each side in a folder below DIR (docs/metrics.md), on disk instead of in memory",
    )
    made.add_argument("--fake-labels", metavar="WHAT", help="the --labels of the generated set; none: it has none")
    made.add_argument("--hash-inputs", action="store_true", help="put a hash of each side's files into the page")
    add_force_option(made)
    add_output_options(made)
    add_source_options(made, _NOT_OF_A_REPORT)
    return made


def run(argv: Sequence[str]) -> int:
    """Write a report."""
    of_command = parser()
    args = parse(of_command, argv)
    from fastfid.report.runs import are_records, make_report_of_runs

    if are_records(args.path):
        for path in args.path:
            check_exists(path)
        show_warnings(args)
        names = None if args.metrics in (None, ALL) else args.metrics
        make_report_of_runs(args.path, args.output, metrics=names, overwrite=args.overwrite)
        remark(f"{args.output}: written")
        return 0
    return _of_sets(of_command, args, argv)


def _of_sets(of_command: Parser, args: argparse.Namespace, argv: Sequence[str]) -> int:
    if len(args.path) != 2:
        of_command.error(f"the real set and the generated one are needed, got {len(args.path)} paths")
    from fastfid.report.make import check_packages, make_report

    check_packages()
    for path in args.path:
        check_exists(path)
    reads_images = will_read(args, args.path)
    prepare(args, reads_images)
    given = fid_options(args, reads_images=reads_images)
    given.pop("cache", None)
    real, generated = args.path
    found = make_report(
        real,
        generated,
        args.output,
        metrics=args.metrics,
        store=args.store,
        pictures=args.pictures,
        command=["fastfid", "report", *argv],
        overwrite=args.overwrite,
        force=args.force,
        hash_inputs=args.hash_inputs,
        **with_labels_of_each(args, given),
    )
    print_values(found)
    for name, reason in found.missing.items():
        remark(f"{name}: not computed: {reason}")
    remark(f"{args.output}: written")
    return 0
