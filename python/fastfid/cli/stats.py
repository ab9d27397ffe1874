"""The command ``stats``: statistics of one source."""

import argparse
import os
from collections.abc import Sequence

from fastfid.cli.engines import add_engine_options, engine_of
from fastfid.cli.options import add_output_options, add_source_options, fid_options, superfluous
from fastfid.cli.output import remark
from fastfid.cli.parser import Parser
from fastfid.cli.runs import Directory, add_run_options, run_directory
from fastfid.cli.start import check_exists, parse, prepare, will_read

__all__ = ["parser", "run", "save_statistics"]


def parser() -> Parser:
    """Return the parser of ``fastfid stats``."""
    made = Parser(
        prog="fastfid stats",
        usage="fastfid stats [options] SOURCE -o FILE.npz",
        description="Compute the statistics (mean and covariance of the features) of one source and keep "
        "them as an .npz that fastfid, pytorch-fid and the other tools read.",
    )
    made.add_argument(
        "source", metavar="SOURCE", help="a folder, .zip, .tar, .parquet, pattern, .npz or .npy, or a URL"
    )
    made.add_argument("-o", "--output", metavar="FILE", required=True, help="the .npz to write")
    made.add_argument("--overwrite", action="store_true", help="replace FILE if it exists; else that is an error")
    made.add_argument(
        "--no-rows",
        action="store_true",
        help="leave out the features of a sample of 2,048 images, 16 MB, from which standard errors are made",
    )
    made.add_argument(
        "--spatial",
        action="store_true",
        help="keep the statistics of the spatial features too, for the sFID: 32 MB, and 16 MB of rows; with --protocol "
        "tensorflow guided-diffusion's evaluator reads the file",
    )
    add_run_options(made, required=False)
    add_engine_options(made)
    add_output_options(made)
    add_source_options(made)
    return made


def run(argv: Sequence[str], directory: Directory | None = None) -> int:
    """Save statistics. `directory` makes the run directory, where it is not the one of the options alone."""
    of_command = parser()
    args = parse(of_command, argv)
    return save_statistics(of_command, args, args.source, args.output, overwrite=args.overwrite, directory=directory)


def save_statistics(
    parser: Parser, args: argparse.Namespace, source: str, output: str, *, overwrite: bool, directory: Directory | None
) -> int:
    """Write the statistics of a source to a file, and return the exit code."""
    from pathlib import Path

    from fastfid._files import check_writable, npz_path
    from fastfid.evaluation.evaluate import compute_statistics
    from fastfid.sources import is_statistics_file

    if not output:
        raise RuntimeError("the output file has no name: expected a path after -o")
    check_exists(source)
    target = npz_path(output)
    for path in (Path(output), target):
        if os.path.lexists(path) and not (overwrite and os.path.isfile(path)):
            how = " (--overwrite replaces it)" if hasattr(args, "overwrite") and not overwrite else ""
            raise RuntimeError(f"Existing output file: {path}{how}")
    if not target.parent.is_dir():
        raise RuntimeError(f"{target}: there is no folder {target.parent}; make it first")
    check_writable(target)
    has_statistics = is_statistics_file(source, args.key)
    reads_images = will_read(args, [source])
    prepare(args, reads_images)
    run_dir = (directory or run_directory)(parser, args)
    remark(f"Saving statistics for {source}")
    with engine_of(args) as engine:
        more = {"spatial": getattr(args, "spatial", False), "run_dir": run_dir, "engine": engine}
        statistics = compute_statistics(source, **more, **fid_options(args, reads_images=reads_images))
    statistics.save(target, overwrite=overwrite, rows=not getattr(args, "no_rows", False))
    if has_statistics:
        remark(f"{source}: holds statistics already, which were copied")
        remark(superfluous(parser, args))
    spatial = f" and {statistics.spatial.d} spatial" if statistics.spatial is not None else ""
    remark(f"{target}: n = {statistics.n}, d = {statistics.d}{spatial}")
    return 0
