"""The command ``part``: do the tasks of one process."""

from collections.abc import Sequence

from fastfid.cli.options import add_output_options, progress_mode
from fastfid.cli.output import remark
from fastfid.cli.parser import Parser, at_least, device
from fastfid.cli.start import prepare

__all__ = ["parser", "run"]


def parser() -> Parser:
    """Return the parser of ``fastfid part``."""
    made = Parser(
        prog="fastfid part",
        usage="fastfid part --run-dir DIR --index I --of N [options]",
        description="Do the tasks I, I + N, I + 2 N, ... of a plan, but for those that are done.",
    )
    made.add_argument("--run-dir", metavar="DIR", required=True, help="the folder of fastfid plan")
    made.add_argument("--index", type=at_least(0), metavar="I", required=True, help="number of this process, from 0")
    made.add_argument("--of", type=at_least(1), metavar="N", required=True, help="number of processes")
    made.add_argument("--device", type=device, metavar="DEV", help="auto (default), cpu, cuda or cuda:N")
    made.add_argument("--weights", metavar="FILE", help="Inception weights file")
    made.add_argument("--threads", type=at_least(1), metavar="N", help="threads to compute with")
    made.add_argument("--num-workers", type=at_least(0), metavar="N", help="threads that decode images")
    add_output_options(made)
    return made


def run(argv: Sequence[str]) -> int:
    """Run ``fastfid part`` with these words."""
    of_command = parser()
    args = of_command.parse_args(argv)
    if args.index >= args.of:
        of_command.error(f"--index: expected 0 to {args.of - 1}, as --of says; got {args.index}")
    from fastfid.evaluation.steps import part, work_where_planned

    run_dir = work_where_planned(args.run_dir)
    prepare(args, reads_images=True)
    given = {name: getattr(args, name) for name in ("device", "weights", "num_workers")}
    given = {name: value for name, value in given.items() if value is not None}
    done = part(run_dir, args.index, args.of, progress=progress_mode(args), **given)
    remark(f"{run_dir}: {done} task{'' if done == 1 else 's'} done")
    return 0
