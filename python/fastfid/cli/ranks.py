"""A command line that torchrun or srun has started several times: the ranks share its work, and rank 0 prints."""

import argparse
import contextlib
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

from fastfid._console import say
from fastfid._remote import is_url
from fastfid.cli import fid, stats
from fastfid.cli.commands import COMMANDS, run_command
from fastfid.cli.launch import Launch
from fastfid.cli.options import INCEPTION, chosen_metrics, fid_options, networks, with_labels_of_each
from fastfid.cli.output import remark
from fastfid.cli.parser import Parser
from fastfid.cli.runs import run_directory
from fastfid.cli.start import parse, prepare, will_read

__all__ = ["run_as_rank"]

# After a failure, the other ranks end so much later than rank 0.
_HEAD_START_S = 3.0
# Options of which nothing is done in tasks.
_NOT_IN_TASKS = ("cache", "store", "per_class")


def run_as_rank(argv: Sequence[str], launch: Launch) -> int:
    """Run a command line together with the other ranks, and return the exit code, which all ranks have.

    Rank 0 prints. The others print nothing; their errors are rank 0's.

    Raises
    ------
    Exception
        On rank 0, what the command raises; also ``RankFailed``, where another rank cannot go on.
    """
    if argv and argv[0] == "part":  # has an index of its own
        return run_command(argv)
    from fastfid.scale.ranks import meet, open_store

    where = (launch.address, launch.port)
    store = open_store(launch.rank, launch.size, *where, hosts=launch.hosts_store, space=launch.space)
    ranks = meet(store, launch.rank, launch.size, argv)
    if ranks is None:
        return run_command(argv)
    ranks.start()
    return _lead(argv, launch, ranks) if launch.rank == 0 else _help(argv, ranks)


def _lead(argv: Sequence[str], launch: Launch, ranks: Any) -> int:
    """Run the command on rank 0."""
    code = 1
    is_hurried = True
    with contextlib.ExitStack() as stack:
        try:
            code = _run_shared(argv, launch, ranks, stack)
            is_hurried = False
        except SystemExit as error:  # of a parser
            code = error.code if isinstance(error.code, int) else 1
            raise
        finally:
            ranks.end(code, hurried=is_hurried)
    return code


def _run_shared(argv: Sequence[str], launch: Launch, ranks: Any, stack: contextlib.ExitStack) -> int:
    if (why := _why_alone(argv)) is not None:
        remark(f"{why} is not divided among ranks: rank 0 does it, and the other {ranks.size - 1} wait")
        return run_command(argv)

    def directory(parser: Parser, args: argparse.Namespace) -> Any:
        """Return the run directory that the ranks share; None: no image is read."""
        from fastfid.scale.ranks import RankDirectory

        if not will_read(args, _paths(args)):
            return None
        run = run_directory(parser, args)
        hosts = list(dict.fromkeys(ranks.hosts))
        if run is None and len(hosts) > 1:
            parser.error(
                f"--run-dir: is needed where the ranks are on several machines, here {', '.join(hosts[:3])}"
                f"{', ...' if len(hosts) > 3 else ''}: give a folder that all see"
            )
        changed = "fresh" if args.fresh else "extend" if args.extend else "refuse"
        folder = args.run_dir if run is not None else stack.enter_context(_temporary())
        ranks.tell("folder", folder if is_url(folder) else os.path.abspath(folder))
        _fetch_weights(args, ranks)
        return RankDirectory(folder, ranks, changed=changed, is_restarted=launch.restarts > 0)

    return stats.run(argv[1:], directory) if _is_stats(argv) else fid.run(argv, directory)


def _why_alone(argv: Sequence[str]) -> str | None:
    """Return what of a command line one process must do; None: nothing."""
    if argv and argv[0] in COMMANDS and not _is_stats(argv):
        return f"fastfid {argv[0]}"
    args = _arguments(argv)
    given = [name for name in _NOT_IN_TASKS if getattr(args, name, None)]
    return f"--{given[0].replace('_', '-')}" if given and args.run_dir is None else None


def _is_stats(argv: Sequence[str]) -> bool:
    return bool(argv) and argv[0] == "stats"


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Return the arguments of a command that is divided."""
    return parse(stats.parser(), argv[1:]) if _is_stats(argv) else parse(fid.parser(), argv)


def _paths(args: argparse.Namespace) -> list[str]:
    """Return the paths that are read."""
    if hasattr(args, "source"):  # of fastfid stats
        return [args.source]
    return list(args.path[:1] if args.save_stats else args.path)


def _temporary() -> Any:
    """Return a folder that is removed at the end. Another rank that is being interrupted may still write into it."""
    return tempfile.TemporaryDirectory(prefix="fastfid-ranks-", ignore_cleanup_errors=True)


def _fetch_weights(args: argparse.Namespace, ranks: Any) -> None:
    """Let the first rank of each machine fetch the weights of Inception, and the others wait."""
    if INCEPTION not in networks(args):
        return
    key = f"weights/{ranks.hosts[ranks.rank]}"
    if not ranks.is_leader():
        ranks.wait(key)
        return
    from fastfid.features.weights import find_weights

    find_weights(args.weights)
    ranks.tell(key, True)


def _help(argv: Sequence[str], ranks: Any) -> int:
    """Do tasks on another rank than 0."""
    from fastfid.scale.ranks import Over, RankFailed

    try:
        with _silence():
            with contextlib.suppress(Over):
                _do_tasks(argv, ranks)
            code = int(ranks.wait("outcome"))
            if code:  # torchrun ends all ranks when the first one fails: rank 0, which is about to say why, goes first
                ranks.leave()
                time.sleep(_HEAD_START_S)
            return code
    except RankFailed as error:  # rank 0 cannot say it
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:  # of all ranks, and rank 0 says it
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - to the end of the process
        raise
    except RuntimeError:  # the store has ended, as rank 0 has, which has said why
        return 1
    finally:
        ranks.leave()


def _do_tasks(argv: Sequence[str], ranks: Any) -> None:
    from fastfid.scale.ranks import Over, RankDirectory, RankFailed

    folder = ranks.wait("folder")
    try:
        args = _arguments(argv)
        prepare(args, reads_images=True)
        warnings.simplefilter("ignore")
        _fetch_weights(args, ranks)
        _read(args, RankDirectory(folder, ranks))
    except (Over, RankFailed):
        raise
    except Exception as error:
        if os.environ.get("FASTFID_TRACEBACK"):  # rank 0 has another one
            traceback.print_exc(file=sys.__stderr__)
        ranks.fail(error)


def _read(args: argparse.Namespace, run: Any) -> None:
    """Do what rank 0 does with the images."""
    from fastfid.cli.several import evaluate_networks
    from fastfid.evaluation.evaluate import compute_statistics, evaluate

    if hasattr(args, "source") or args.save_stats:
        spatial = getattr(args, "spatial", False)
        compute_statistics(_paths(args)[0], spatial=spatial, run_dir=run, **fid_options(args, reads_images=True))
    elif len(networks(args)) > 1:
        evaluate_networks(args, chosen_metrics(args), run, None)
    else:
        evaluate(
            *args.path,
            metrics=chosen_metrics(args),
            force=args.force,
            per_class=args.per_class,
            run_dir=run,
            **with_labels_of_each(args, fid_options(args, reads_images=True)),
        )


@contextlib.contextmanager
def _silence() -> Any:
    """Print nothing."""
    with (
        open(os.devnull, "w", encoding="utf-8") as nothing,
        contextlib.redirect_stdout(nothing),
        contextlib.redirect_stderr(nothing),
    ):
        yield
