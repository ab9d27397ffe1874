"""The command line: ``fastfid PATH PATH`` with pytorch-fid's flags, and additional commands.

Only the result is printed on stdout; every other line goes to stderr. Exit codes: 0 success; 1 an error, with one
sentence on stderr; 2 wrong usage; 130 Ctrl-C; 143 SIGTERM. Modules that load slowly are imported inside the functions
that need them, so that ``--help`` is fast.
"""

import argparse
import contextlib
import io
import json
import math
import os
import signal
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from fastfid import _console
from fastfid._console import say
from fastfid.cli.engines import check_engine_options, engine_of
from fastfid.cli.launch import launched
from fastfid.cli.options import PARSERS, check_network_options, fid_options, networks, selection_options, superfluous
from fastfid.cli.parser import Parser, unknown_command
from fastfid.cli.signals import Signals

__all__ = ["main", "run", "run_command"]


def _parse(parser: Parser, argv: Sequence[str]) -> argparse.Namespace:
    args = parser.parse_args(argv)
    if args.max_errors is not None and args.on_error != "skip":
        parser.error("--max-errors: needs --on-error skip; without it the first unreadable image is an error")
    if hasattr(args, "engine"):
        check_engine_options(parser, args)
    check_network_options(parser, args)
    return args


def _run_fid(argv: Sequence[str], directory: Callable[[Parser, argparse.Namespace], Any] | None = None) -> int:
    """Compare two sets. `directory` makes the run directory, where it is not the one of the options alone."""
    parser = PARSERS[""]()
    args = _parse(parser, argv)
    if args.save_stats:
        of_a_record = ("json", "append", "hash-inputs", "metrics", "per-class", "fake-labels")
        for option in (*of_a_record, "force", "store", "run-dir", "engine"):
            if getattr(args, option.replace("-", "_")) not in (None, False):
                parser.error(f"--{option}: there is no distance with --save-stats")
        return _save_statistics(parser, args, *args.path, overwrite=False)
    if args.hash_inputs and not args.json and args.append is None:
        parser.error("--hash-inputs: is of the record, for which --json or --append asks")
    from fastfid.evaluation.evaluate import evaluate

    for path in args.path:
        _check_exists(path)
    if args.append is not None:
        _check_append(args.append, args.path)
    reads_images = _reads_images(args, args.path)
    _prepare(args, reads_images)
    if len(networks(args)) > 1:
        return _run_extractors(args, argv)
    with engine_of(args) as engine:
        found = evaluate(
            *args.path,
            metrics=_metrics(args),
            force=args.force,
            hash_inputs=args.hash_inputs,
            store=args.store,
            per_class=args.per_class,
            run_dir=(directory or _run_directory)(parser, args),
            engine=engine,
            **_with_labels_of_each(args, fid_options(args, reads_images=reads_images)),
        )
    record = found.to_dict(command=["fastfid", *argv])
    _remark_on_kept(args, found)
    if not reads_images:
        _remark(superfluous(parser, args))
    _remark_on(args, found)
    problem = _append(args.append, record) if args.append is not None else None
    _print_result(args, found, record)
    sys.stdout.flush()
    if problem is not None:
        raise problem
    return 0


def _run_extractors(args: argparse.Namespace, argv: Sequence[str]) -> int:
    """Print a table, or the record, of several extractors."""
    from fastfid.cli.several import evaluate_networks

    found = evaluate_networks(args, _metrics(args))
    record = found.to_dict(command=["fastfid", *argv])
    for name, one in found.items():
        _remark_on_kept(args, one, f"{name}: ")
        for metric, reason in one.missing.items():
            _remark(f"{name}: {metric}: not computed: {reason}")
    problem = _append(args.append, record) if args.append is not None else None
    print(json.dumps(record, indent=2, allow_nan=False) if args.json else found.table())
    sys.stdout.flush()
    if problem is not None:
        raise problem
    return 0


def _remark_on_kept(args: argparse.Namespace, found: Any, of: str = "") -> None:
    """Say which sides were not read, as a store or the cache had what they need."""
    for side, cached in found.cached.items():
        if cached:
            what = f"features from {args.store}" if args.store else "statistics from the cache"
            _remark(f"{of}{getattr(found, side).name}: {what}")


def _remark_on(args: argparse.Namespace, found: Any) -> None:
    """Say what there is to know of an FID, and which sides are known references."""
    for side in ("real", "fake"):
        if (name := found.known_as.get(side)) is not None:
            _remark(f"{getattr(found, side).name}: has the numbers of the known reference {name}")
    if "fid" in found:
        _remark(_sample_size_remark(found.dims, [found.real, found.fake]))
        if not args.json and not args.metrics:
            _remark(_standard_error_remark(found["fid"]))


def _run_directory(parser: Parser, args: argparse.Namespace) -> Any:
    """Return the run directory that the options ask for; None: none."""
    if args.run_dir is None:
        if args.fresh or args.extend:
            parser.error(f"--{'fresh' if args.fresh else 'extend'}: is of --run-dir")
        return None
    if getattr(args, "cache", None):
        parser.error("--cache: does not go with --run-dir")
    from fastfid.scale import RunDirectory

    workers = None if getattr(args, "engine", None) else getattr(args, "workers", None)  # the engine has its own
    if args.fresh or args.extend:
        return RunDirectory(args.run_dir, changed="fresh" if args.fresh else "extend", workers=workers)
    return RunDirectory(args.run_dir, workers=workers)


def _reads_images(args: argparse.Namespace, paths: Sequence[str]) -> bool:
    """Return whether an image of the paths is read: they are not all statistics or stores of features."""
    from fastfid.sources import is_statistics_file
    from fastfid.store import is_store

    return not all(is_statistics_file(path, args.key) or is_store(path) for path in paths)


def _check_append(target: str, paths: Sequence[str]) -> None:
    """Refuse a file to which no record can be added, before any image is read."""
    from fastfid._files import check_appendable

    if not target:
        raise RuntimeError("--append: the file has no name")
    if any(os.path.exists(path) and os.path.exists(target) and os.path.samefile(path, target) for path in paths):
        raise RuntimeError(f"{target}: --append would write into what is compared")
    folder = os.path.dirname(os.path.realpath(target))
    if not os.path.isdir(folder):
        raise RuntimeError(f"{target}: there is no folder {folder}")
    check_appendable(target)


def _append(target: str, record: Any) -> OSError | ValueError | None:
    """Add the record to a file; return what was in the way, as the result is to be printed all the same."""
    from fastfid._files import append_line

    try:
        append_line(target, json.dumps(record, allow_nan=False))
    except (OSError, ValueError) as error:
        return error
    return None


def _with_labels_of_each(args: argparse.Namespace, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options with the labels of each side, where the second has labels of its own."""
    if args.fake_labels is None:
        return options
    fake = None if args.fake_labels == "none" else args.fake_labels
    return {**options, "labels": {"real": options.get("labels"), "fake": fake}}


def _metrics(args: argparse.Namespace) -> Any:
    """Return the metrics that were asked for."""
    from fastfid.metrics import ALL
    from fastfid.metrics.fid import FrechetInceptionDistance

    if args.metrics == ALL:
        return ALL
    # What nobody sees is not computed.
    is_seen = args.metrics or args.json or args.append is not None or not args.quiet
    fid = FrechetInceptionDistance(needs_standard_error=bool(is_seen))
    return [fid if name == fid.name else name for name in args.metrics or [fid.name]]


def _print_result(args: argparse.Namespace, found: Any, record: Any) -> None:
    """Print the record, or a line for each value; the FID alone as pytorch-fid prints it."""
    for name, reason in found.missing.items():
        _remark(f"{name}: not computed: {reason}")
    if args.json:
        print(json.dumps(record, indent=2, allow_nan=False))
        return
    if args.metrics:
        _print_values(found)
    else:
        print(f"{_label(found, 'fid')}: ", found["fid"].value)
    if found.per_class is not None:
        print(found.per_class.table())


def _print_values(found: Any) -> None:
    """Print a line for each value, and remarks on the values."""
    for name, result in found.items():
        print(f"{_label(found, name)}:  {_with_error(result.value, result.standard_error)}")
    for remark in _remarks_of_results(found):
        _remark(remark)


def _label(found: Any, name: str) -> str:
    """Return the text before a value, which depends on the network."""
    from fastfid.metrics import label_of

    return label_of(name, [side.meta.get("extractor") for side in (found.real, found.fake)])


def _with_error(value: float, error: float | None) -> str:
    """Return the value with its standard error, to two digits of that; all digits of a value without one."""
    if not error:
        return str(value)
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{digits}f} +- {error:.{digits}f}"


def _remarks_of_results(found: Any) -> list[str]:
    """Return the notes of the results, and why some have no standard error."""
    reasons: dict[str, list[str]] = {}
    for name, result in found.items():
        if result.standard_error is None and result.no_standard_error:
            reasons.setdefault(result.no_standard_error, []).append(_label(found, name))
    notes = [f"{_label(found, name)}: {result.note}" for name, result in found.items() if result.note]
    return notes + [f"{', '.join(labels)}: no standard error: {reason}" for reason, labels in reasons.items()]


def _run_adm(argv: Sequence[str]) -> int:
    args = _parse(PARSERS["adm"](), argv)
    from fastfid.evaluation.adm import LABELS, evaluate_adm

    for path in (args.reference, args.samples):
        _check_exists(path)
    _prepare(args, reads_images=True)
    found = evaluate_adm(
        args.reference,
        args.samples,
        force=args.force,
        store=args.store,
        needs_standard_error=args.json,
        **fid_options(args, reads_images=True),
    )
    if args.json:
        print(json.dumps(found.to_dict(command=["fastfid", "adm", *argv]), indent=2, allow_nan=False))
        return 0
    for name, label in LABELS.items():
        if name in found.missing:
            print(f"{label}: not computed: {found.missing[name]}")
        else:
            print(f"{label}: {found[name].value}")
    _remark(_sample_size_remark(found.dims, [found.real, found.fake]))
    return 0


def _run_stats(argv: Sequence[str]) -> int:
    parser = PARSERS["stats"]()
    args = _parse(parser, argv)
    return _save_statistics(parser, args, args.source, args.output, overwrite=args.overwrite)


def _save_statistics(parser: Parser, args: argparse.Namespace, source: str, output: str, *, overwrite: bool) -> int:
    from pathlib import Path

    from fastfid._files import check_writable, npz_path
    from fastfid.evaluation.evaluate import compute_statistics
    from fastfid.sources import is_statistics_file

    run_dir = _run_directory(parser, args)
    if not output:
        raise RuntimeError("the output file has no name")
    _check_exists(source)
    target = npz_path(output)
    for path in (Path(output), target):
        if os.path.lexists(path) and not (overwrite and os.path.isfile(path)):
            how = " (--overwrite replaces it)" if hasattr(args, "overwrite") and not overwrite else ""
            raise RuntimeError(f"Existing output file: {path}{how}")
    if not target.parent.is_dir():
        raise RuntimeError(f"{target}: there is no folder {target.parent}")
    check_writable(target)
    has_statistics = is_statistics_file(source, args.key)
    reads_images = _reads_images(args, [source])
    _prepare(args, reads_images)
    _remark(f"Saving statistics for {source}")
    with engine_of(args) as engine:
        more = {"spatial": getattr(args, "spatial", False), "run_dir": run_dir, "engine": engine}
        statistics = compute_statistics(source, **more, **fid_options(args, reads_images=reads_images))
    statistics.save(target, overwrite=overwrite, rows=not getattr(args, "no_rows", False))
    if has_statistics:
        _remark(f"{source}: holds statistics already, which were copied")
        _remark(superfluous(parser, args))
    spatial = f" and {statistics.spatial.d} spatial" if statistics.spatial is not None else ""
    _remark(f"{target}: n = {statistics.n}, d = {statistics.d}{spatial}")
    return 0


def _run_compare(argv: Sequence[str]) -> int:
    parser = PARSERS["compare"]()
    args = _parse(parser, argv)
    if not args.records and args.path and all(path.endswith((".json", ".jsonl")) for path in args.path):
        args.records, args.path = args.path, []
    if args.store and not args.metrics:
        parser.error("--store: is for --metrics NAMES, such as --metrics fid,kid")
    if args.records and args.metrics:
        parser.error("--records: have metrics of their own; leave out --metrics")
    if args.records and args.path:
        parser.error("--records: takes no other paths")
    if not args.records and len(args.path) < 3:
        parser.error("a reference and two candidates or more are needed")
    from fastfid.evaluation.compared_metrics import compare_metrics
    from fastfid.evaluation.comparison import compare
    from fastfid.evaluation.stored import compare_records

    found: Any
    if args.records:
        _show_warnings(args)
        found = compare_records(args.records)
    else:
        for path in args.path:
            _check_exists(path)
        reads_images = _reads_images(args, args.path)
        _prepare(args, reads_images)
        reference, *candidates = args.path
        options = {"force": args.force, **fid_options(args, reads_images=reads_images)}
        if args.metrics:
            found = compare_metrics(reference, candidates, metrics=args.metrics, store=args.store, **options)
        else:
            found = compare(reference, candidates, **options)
        if not reads_images:
            _remark(superfluous(parser, args))
    for remark in _remarks_of_comparison(found):
        _remark(remark)
    print(json.dumps(found.to_dict(), indent=2, allow_nan=False) if args.json else found.table())
    return 0


def _remarks_of_comparison(found: Any) -> list[str]:
    if hasattr(found, "note"):  # of the FID alone
        return [found.note] if found.note else []
    return [f"{name}: not computed: {reason}" for name, reason in found.missing.items()]


def _run_inspect(argv: Sequence[str]) -> int:
    args = PARSERS["inspect"]().parse_args(argv)
    from fastfid.inspection import inspect_features, inspect_source

    _check_exists(args.source)
    if (features := inspect_features(args.source, add_reference=args.add_reference)) is not None:
        _print_facts(features, in_json=args.json)
        return 0
    found = inspect_source(args.source, all_headers=args.all, **selection_options(args))
    print(json.dumps(found.to_dict(), indent=2, allow_nan=False) if args.json else found.text())
    return 0


def _run_weights(argv: Sequence[str]) -> int:
    args = PARSERS["weights"]().parse_args(argv)
    from fastfid.features import weights

    if args.action == "show":
        print(weights.describe(args.weights))
    else:
        found = weights.find_weights(args.weights, fetch=args.action == "get")
        if args.action == "get" and args.weights:
            found = weights.keep_in_cache(found)
        print(f"{found.path}: {found.identity}")
    return 0


def _run_info(argv: Sequence[str]) -> int:
    args = PARSERS["info"]().parse_args(argv)
    from fastfid.info import gather

    _print_facts(gather(), in_json=args.json)
    return 0


def _print_facts(facts: Mapping[str, Any], *, in_json: bool) -> None:
    if in_json:
        print(json.dumps(facts, indent=2))
        return
    width = max(len(key) for key in facts)
    for key, value in facts.items():
        print(f"{key:{width}}  {value}")


def _run_demo(argv: Sequence[str]) -> int:
    args = PARSERS["demo"]().parse_args(argv)
    from fastfid.demo import run

    _show_warnings(args)
    run(args.output, device=args.device or "auto", weights=args.weights, progress=not args.quiet and "lines")
    return 0


def _run_completion(argv: Sequence[str]) -> int:
    args = PARSERS["completion"]().parse_args(argv)
    from fastfid.cli.completion import script

    print(script(args.shell), end="")
    return 0


def _step(name: str) -> Callable[[Sequence[str]], int]:
    def run(argv: Sequence[str]) -> int:
        from fastfid.cli import steps  # which imports this file

        return steps.RUNS[name](argv)

    return run


def _run_extractors_command(argv: Sequence[str]) -> int:
    from fastfid.cli import extractors

    return extractors.run(argv)


def _run_study(argv: Sequence[str]) -> int:
    from fastfid.cli import study  # which imports this file

    return study.run(argv)


def _run_report(argv: Sequence[str]) -> int:
    from fastfid.cli import report  # which imports this file

    return report.run(argv)


_COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "adm": _run_adm,
    "compare": _run_compare,
    "report": _run_report,
    "stats": _run_stats,
    "inspect": _run_inspect,
    "plan": _step("plan"),
    "part": _step("part"),
    "reduce": _step("reduce"),
    "extractors": _run_extractors_command,
    "study": _run_study,
    "weights": _run_weights,
    "info": _run_info,
    "demo": _run_demo,
    "completion": _run_completion,
}


def _check_exists(path: str) -> None:
    # The message is pytorch-fid's. Globs and brace lists of shards are resolved later.
    if not os.path.exists(path) and not any(c in path for c in "*?[{") and "://" not in path:
        meant = unknown_command(path)
        raise RuntimeError(f"Invalid path: {path}{f' ({meant})' if meant else ''}")


def _prepare(args: argparse.Namespace, reads_images: bool) -> None:
    """Set up the process: crash reports, warnings as lines on stderr, threads; print a remark if the CPU is used."""
    from fastfid import _core

    _core.report_crashes()
    _show_warnings(args)
    if args.threads is not None:
        _core.set_num_threads(args.threads)
    if reads_images:
        from PIL import Image

        # fastfid checks its own limit, --max-pixels, before decoding. No option can raise Pillow's limit.
        Image.MAX_IMAGE_PIXELS = None
        devices, why = _core.cuda_driver()
        if args.device in (None, "auto") and devices == 0:  # pytorch-fid falls back to the CPU in silence
            _remark(f"running on the CPU: {why}")


def _show_warnings(args: argparse.Namespace) -> None:
    """Print warnings as lines on stderr. Skipped images and likely mistakes are reported even with --quiet."""
    from fastfid.errors import FastfidWarning, SkippedImagesWarning, SuspiciousInputWarning

    _console.set_quiet(args.quiet)
    if args.quiet:
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
    warnings.simplefilter("ignore" if args.quiet else "always", FastfidWarning)
    warnings.simplefilter("always", SkippedImagesWarning)
    warnings.simplefilter("always", SuspiciousInputWarning)
    warnings.showwarning = _console.show_warning


def _sample_size_remark(d: int, sides: Sequence[Any]) -> str | None:
    """Return what is said where a side has no more images than dims."""
    thin = [f"{side.name} (n = {side.n})" for side in sides if side.n is not None and side.n <= d]
    if not thin:
        return None
    return (
        f"{' and '.join(thin)}: no more images than dims ({d}), so sampling bias dominates: "
        "compare the distance only with distances of the same n"
    )


def _standard_error_remark(fid: Any) -> str | None:
    """Return what is said of the standard error; None where there is none, for which the record has the reason."""
    if fid.standard_error is None:
        return None
    whose = "" if fid.standard_error_of == "both" else ", of the second set alone: the first counts as fixed"
    good_to = f"itself good to {fid.relative_error_of_standard_error:.0%}"
    return f"standard error of sampling: {fid.standard_error:.4g} ({good_to}{whose})"


def _remark(text: str | None) -> None:
    if text:
        _console.remark(text)


def run_command(argv: Sequence[str]) -> int:
    """Run a command line in this process and return the exit code."""
    run = _COMMANDS.get(argv[0]) if argv else None
    return run(argv[1:]) if run else _run_fid(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own) and return the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    # A closed stream is None, and print(file=None) would print errors on stdout.
    sys.stdout = sys.stdout or io.StringIO()
    sys.stderr = sys.stderr or io.StringIO()
    with Signals() as signals, warnings.catch_warnings():
        try:
            launch = launched()
            if launch is None:
                code = run_command(argv)
            else:
                from fastfid.cli import ranks  # which imports this file

                code = ranks.run_as_rank(argv, launch)
            sys.stdout.flush()
            return code
        except BrokenPipeError:
            # The reader of stdout has closed the pipe. Without this, Python would report the error again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except (KeyboardInterrupt, OSError, ValueError, RuntimeError, ImportError, MemoryError, TypeError) as error:
            if signals.received is not None or isinstance(error, KeyboardInterrupt):
                number = signals.received or signal.SIGINT
                say("interrupted" if number == signal.SIGINT else "terminated")
                return 128 + number
            if os.environ.get("FASTFID_TRACEBACK"):
                raise
            say(f"error: {_sentence(error)}", *_steps(error))
            return 1
        finally:
            _console.set_quiet(False)


def run() -> NoReturn:
    """Run the process's command line and end the process. This is the entry point of the command ``fastfid``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for "Fréchet" and file names on ASCII terminals
    code = main()
    if code > 128:
        # Interrupted, and the cleanup is done. Python's shutdown is slow, and a signal would change the exit code.
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(code)
    try:
        sys.stderr.flush()
    except OSError:  # closed or full; Python would flush again at exit, and exit with another code
        sys.stderr = io.StringIO()
    sys.exit(code)


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError):
        return str(error) or "out of memory"
    if _steps(error):
        return str(error.args[0])
    return str(error) or type(error).__name__


def _steps(error: BaseException) -> Sequence[str]:
    """Return the lines that state how to resolve the error."""
    from fastfid.errors import WeightsError

    return error.args[1:] if isinstance(error, WeightsError) else ()
