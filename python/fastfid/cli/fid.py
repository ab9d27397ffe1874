"""The command without a name: metrics of two sets, by default the FID as pytorch-fid prints it."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from fastfid._version import __version__
from fastfid.cli.commands import COMMANDS
from fastfid.cli.engines import add_engine_options, engine_of
from fastfid.cli.options import (
    add_force_option,
    add_output_options,
    add_source_options,
    add_store_option,
    chosen_metrics,
    fid_options,
    networks,
    superfluous,
    with_labels_of_each,
)
from fastfid.cli.output import print_result, remark, remark_on, remark_on_kept
from fastfid.cli.parser import Parser, metrics
from fastfid.cli.runs import Directory, add_run_options, run_directory
from fastfid.cli.start import check_exists, parse, prepare, will_read
from fastfid.metrics import ALL, METRICS

__all__ = ["parser", "run"]


_DESCRIPTION = """\
Fréchet Inception Distance (FID) of two sets of images. Prints "FID:  <number>".
Takes pytorch-fid's command lines and gives pytorch-fid's numbers. With another network: "FD:  <number>".

A PATH is a folder of images, a .zip or .tar, a quoted pattern ('run/*_fake.png', 'shard-{00..15}.tar'), an .npz or
.npy of images, a .parquet of pictures, the URL of such a file, or an .npz of statistics (mu, sigma) that this or any
other tool has written.

commands (their names win over paths; write ./stats for a folder called stats):
{commands}
"""
_EPILOG = """\
examples:
  fastfid real/ generated/                       the FID that pytorch-fid prints
  fastfid stats real/ -o real.npz                once
  fastfid real.npz generated.zip --json          then often, with numerical bounds, n and versions
  fastfid real/ generated/ --protocol clean      another preprocessing; docs/protocols.md
  fastfid real/ generated/ --extractor dinov2.onnx  another network's features; docs/extractors.md
  fastfid real/ generated/ --metrics fid,kid,prdc  several metrics from one pass; docs/metrics.md
  fastfid real/ generated/ --per-class --labels folder  the FID of each class; docs/classes.md
  fastfid real.npz step9/ --append runs.jsonl    and one line a run for later; docs/json.md

environment: FASTFID_WEIGHTS (a weights file), FASTFID_CACHE (folder of the weights and of --cache), FASTFID_NUM_THREADS
(like --threads; then OMP_NUM_THREADS). exit codes: 0, 1 failure (one sentence on stderr), 2 usage, 130 interrupted.
"""


def parser() -> Parser:
    """Return the parser of ``fastfid PATH PATH``."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  fastfid {name:{width}}  {what}" for name, what in COMMANDS.items())
    made = Parser(
        prog="fastfid",
        usage="fastfid [options] PATH PATH",
        description=_DESCRIPTION.replace("{commands}", commands),
        epilog=_EPILOG,
    )
    made.add_argument(
        "path",
        nargs=2,
        metavar="PATH",
        help="the real set and the generated one, or statistics (.npz); their order changes precision and recall",
    )
    made.add_argument(
        "--metrics",
        type=metrics,
        metavar="NAMES",
        help=f"metrics from one pass over the images, with commas between: {', '.join(METRICS)}; or {ALL} that can be "
        "computed; a tool's convention as kid:torch-fidelity (docs/metrics.md); default: the FID, printed as "
        "pytorch-fid does",
    )
    made.add_argument("--json", action="store_true", help="print one JSON object (docs/json.md)")
    made.add_argument(
        "--append",
        metavar="FILE",
        help="add that object to FILE as one line (JSON lines); several runs may do so at once",
    )
    made.add_argument(
        "--hash-inputs",
        action="store_true",
        help="put a hash of each side's files (names and contents) into that object",
    )
    add_store_option(made)
    add_run_options(made, required=False)
    add_engine_options(made)
    made.add_argument(
        "--per-class",
        action="store_true",
        help="the metrics of each class too, as a table, from the --labels of both sides or of one (docs/classes.md)",
    )
    made.add_argument(
        "--fake-labels",
        metavar="WHAT",
        help="the --labels of the second PATH, where they come from another place than those of the first; none: it "
        "has none",
    )
    add_force_option(made)
    made.add_argument("--save-stats", action="store_true", help="write the statistics of the first path to the second")
    add_output_options(made)
    made.add_argument("--version", action="version", version=f"fastfid {__version__}")
    add_source_options(made)
    return made


def run(argv: Sequence[str], directory: Directory | None = None) -> int:
    """Compare two sets. `directory` makes the run directory, where it is not the one of the options alone."""
    of_command = parser()
    args = parse(of_command, argv)
    if args.save_stats:
        of_a_record = ("json", "append", "hash-inputs", "metrics", "per-class", "fake-labels")
        for option in (*of_a_record, "force", "store", "run-dir", "engine"):
            if getattr(args, option.replace("-", "_")) not in (None, False):
                of_command.error(f"--{option}: there is no distance with --save-stats")
        from fastfid.cli.stats import save_statistics

        return save_statistics(of_command, args, *args.path, overwrite=False, directory=directory)
    if args.hash_inputs and not args.json and args.append is None:
        of_command.error("--hash-inputs: is of the record, for which --json or --append asks")
    from fastfid.evaluation.evaluate import evaluate

    for path in args.path:
        check_exists(path)
    if args.append is not None:
        _check_append(args.append, args.path)
    reads_images = will_read(args, args.path)
    prepare(args, reads_images)
    run_dir = (directory or run_directory)(of_command, args)
    if len(networks(args)) > 1:
        return _run_extractors(args, argv, run_dir)
    with engine_of(args) as engine:
        found = evaluate(
            *args.path,
            metrics=chosen_metrics(args),
            force=args.force,
            hash_inputs=args.hash_inputs,
            store=args.store,
            per_class=args.per_class,
            run_dir=run_dir,
            engine=engine,
            **with_labels_of_each(args, fid_options(args, reads_images=reads_images)),
        )
    record = found.to_dict(command=["fastfid", *argv])
    remark_on_kept(args, found)
    if not reads_images:
        remark(superfluous(of_command, args))
    remark_on(args, found)
    problem = _append(args.append, record) if args.append is not None else None
    print_result(args, found, record)
    sys.stdout.flush()
    if problem is not None:
        raise problem
    return 0


def _run_extractors(args: argparse.Namespace, argv: Sequence[str], run_dir: Any) -> int:
    """Print a table, or the record, of several extractors."""
    from fastfid.cli.several import evaluate_networks, print_table

    with engine_of(args) as engine:
        found = evaluate_networks(args, chosen_metrics(args), run_dir, engine)
    record = found.to_dict(command=["fastfid", *argv])
    problem = _append(args.append, record) if args.append is not None else None
    print_table(args, found, record)
    if problem is not None:
        raise problem
    return 0


def _check_append(target: str, paths: Sequence[str]) -> None:
    """Refuse a file to which no record can be added, before any image is read."""
    from fastfid._files import check_appendable

    if not target:
        raise RuntimeError("--append: the file has no name: expected a path")
    if any(os.path.exists(path) and os.path.exists(target) and os.path.samefile(path, target) for path in paths):
        raise RuntimeError(f"{target}: --append would write into what is compared")
    folder = os.path.dirname(os.path.realpath(target))
    if not os.path.isdir(folder):
        raise RuntimeError(f"{target}: there is no folder {folder}; make it first")
    check_appendable(target)


def _append(target: str, record: Any) -> OSError | ValueError | None:
    """Add the record to a file; return what was in the way, as the result is to be printed all the same."""
    from fastfid._files import append_line

    try:
        append_line(target, json.dumps(record, allow_nan=False))
    except (OSError, ValueError) as error:
        return error
    return None
