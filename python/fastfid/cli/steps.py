"""The commands ``plan``, ``part`` and ``reduce``: an evaluation by several processes."""

from collections.abc import Callable, Sequence

from fastfid import cli
from fastfid.cli import options
from fastfid.cli.parser import Parser, at_least, device, metrics

__all__ = ["PARSERS", "RUNS"]


# Options of the network and of the images that a plan has; how they are read is each process's own.
_OF_A_PLAN = {
    *("dims", "protocol", "device", "precision", "weights", "on_error", "max_errors"),
    *("recursive", "any_case", "match", "num", "seed", "key", "value_range", "to_uint8", "column", "alpha", "exif"),
    *("labels", "max_pixels"),
}
# A network of one's own goes through Python. What was read is kept in the run directory, not in the cache.
_NOT_OF_A_PLAN = ("--extractor", "--input", "--cache", "--cache-hashes")


def _plan_parser() -> Parser:
    parser = Parser(
        prog="fastfid plan",
        usage="fastfid plan [options] PATH PATH --run-dir DIR",
        description="Divide an evaluation into tasks, which any number of processes do, on any machines that see DIR "
        "and the images. The result has the digits of fastfid PATH PATH, every bit.",
        epilog="""\
example:
  fastfid plan real/ generated/ --run-dir run --workers 8
  fastfid part --run-dir run --index 0 --of 8      and so on, up to --index 7; again, if one was killed
  fastfid reduce --run-dir run
""",
    )
    parser.add_argument(
        "path", nargs=2, metavar="PATH", help="the real set and the generated one, or statistics (.npz)"
    )
    options._add_run_options(parser, required=True)
    parser.add_argument(
        "--workers",
        type=at_least(1),
        default=1,
        metavar="N",
        help="about how many processes there will be; default: 1",
    )
    parser.add_argument("--metrics", type=metrics, metavar="NAMES", help="metrics; default: the FID")
    parser.add_argument("--per-class", action="store_true", help="the metrics of each class too (docs/classes.md)")
    parser.add_argument("--fake-labels", metavar="WHAT", help="the --labels of the second PATH, if they are others")
    parser.add_argument("--force", action="store_true", help="compare although protocol, network or precision differ")
    options._add_output_options(parser)
    options._add_source_options(parser, _NOT_OF_A_PLAN)
    return parser


def _part_parser() -> Parser:
    parser = Parser(
        prog="fastfid part",
        usage="fastfid part --run-dir DIR --index I --of N [options]",
        description="Do the tasks I, I + N, I + 2 N, ... of a plan, but for those that are done.",
    )
    parser.add_argument("--run-dir", metavar="DIR", required=True, help="the folder of fastfid plan")
    parser.add_argument("--index", type=at_least(0), metavar="I", required=True, help="number of this process, from 0")
    parser.add_argument("--of", type=at_least(1), metavar="N", required=True, help="number of processes")
    parser.add_argument("--device", type=device, metavar="DEV", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument("--weights", metavar="FILE", help="Inception weights file")
    parser.add_argument("--threads", type=at_least(1), metavar="N", help="threads to compute with")
    parser.add_argument("--num-workers", type=at_least(0), metavar="N", help="threads that decode images")
    options._add_output_options(parser)
    return parser


def _reduce_parser() -> Parser:
    parser = Parser(
        prog="fastfid reduce",
        usage="fastfid reduce --run-dir DIR [options]",
        description="Print what fastfid PATH PATH prints, from a plan whose tasks are done. No image is read.",
    )
    parser.add_argument("--run-dir", metavar="DIR", required=True, help="the folder of fastfid plan")
    parser.add_argument("--json", action="store_true", help="print one JSON object (docs/json.md)")
    parser.add_argument("--weights", metavar="FILE", help="Inception weights file, for metrics that need them")
    parser.add_argument("--threads", type=at_least(1), metavar="N", help="threads to compute with")
    options._add_output_options(parser)
    return parser


def _run_plan(argv: Sequence[str]) -> int:
    parser = _plan_parser()
    args = cli._parse(parser, argv)
    run = cli._run_directory(parser, args)
    from fastfid.evaluation.steps import plan

    for path in args.path:
        cli._check_exists(path)
    cli._prepare(args, cli._reads_images(args, args.path))
    given = {name: x for name, x in options.fid_options(args, reads_images=True).items() if name in _OF_A_PLAN}
    given = cli._with_labels_of_each(args, given)
    given |= {"metrics": args.metrics or ["fid"], "force": args.force, "per_class": args.per_class}
    real, fake = args.path
    tasks = plan(real, fake, run, **given)
    cli._remark(f"{run.path}: {tasks} tasks; next: fastfid part --run-dir {args.run_dir} --index 0 --of {args.workers}")
    return 0


def _run_part(argv: Sequence[str]) -> int:
    parser = _part_parser()
    args = parser.parse_args(argv)
    if args.index >= args.of:
        parser.error(f"--index: expected 0 to {args.of - 1}, as --of says; got {args.index}")
    from fastfid.evaluation.steps import part, work_where_planned

    run_dir = work_where_planned(args.run_dir)
    cli._prepare(args, reads_images=True)
    given = {name: getattr(args, name) for name in ("device", "weights", "num_workers")}
    given = {name: value for name, value in given.items() if value is not None}
    done = part(run_dir, args.index, args.of, progress=options.progress_mode(args), **given)
    cli._remark(f"{run_dir}: {done} tasks done")
    return 0


def _run_reduce(argv: Sequence[str]) -> int:
    args = _reduce_parser().parse_args(argv)
    from fastfid.evaluation.steps import metrics_of, reduce, work_where_planned

    run_dir = work_where_planned(args.run_dir)
    cli._prepare(args, reads_images=False)
    args.append = None
    args.metrics = metrics_of(run_dir)
    found = reduce(run_dir, metrics=cli._metrics(args), weights=args.weights)
    cli._remark_on(args, found)
    cli._print_result(args, found, found.to_dict(command=["fastfid", "reduce", *argv]))
    return 0


PARSERS: dict[str, Callable[[], Parser]] = {"plan": _plan_parser, "part": _part_parser, "reduce": _reduce_parser}
RUNS: dict[str, Callable[[Sequence[str]], int]] = {"plan": _run_plan, "part": _run_part, "reduce": _run_reduce}
