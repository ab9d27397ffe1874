"""Options that several commands have, and the keywords of the library that they stand for."""

import argparse
from collections.abc import Callable, Container, Sequence
from typing import Any

from fastfid.cli.parser import Parser, at_least, device, dims, one_of
from fastfid.precisions import PRECISIONS
from fastfid.protocols import OF_TOOLS, PROTOCOLS

__all__ = [
    "INCEPTION",
    "add_force_option",
    "add_output_options",
    "add_selection_options",
    "add_source_options",
    "add_store_option",
    "check_network_options",
    "chosen_metrics",
    "fid_options",
    "networks",
    "open_network",
    "progress_mode",
    "selection_options",
    "superfluous",
    "with_labels_of_each",
]


INCEPTION = "inception"  # the default of --extractor
_OF_SEVERAL = ("fastfid", "fastfid plan")  # the commands that take several extractors


def add_force_option(parser: argparse.ArgumentParser) -> None:
    """Add --force."""
    parser.add_argument("--force", action="store_true", help="compare although protocol, network or precision differ")


def add_store_option(parser: argparse.ArgumentParser) -> None:
    """Add --store."""
    parser.add_argument(
        "--store",
        metavar="DIR",
        help="keep the features of each side in a folder below DIR, which is itself a PATH for later runs; an "
        "interrupted run goes on (docs/metrics.md)",
    )


def add_source_options(parser: argparse.ArgumentParser, without: Container[str] = ()) -> None:
    """Add the options of all that reads images, but those `without` which a command does."""
    _add_network_options(parser, without)
    _add_image_options(parser, without)


def _extractor(text: str) -> str:
    if text != INCEPTION and not text.endswith(".onnx"):
        from fastfid.cli.extractors import how_to_make

        raise argparse.ArgumentTypeError(f"expected {INCEPTION} or FILE.onnx, got {text!r}{how_to_make(text)}")
    return text


def _adder(parser: argparse.ArgumentParser, title: str, without: Container[str]) -> Callable[..., None]:
    """Return what adds an option to a new group, unless the command does without."""
    group = parser.add_argument_group(title)

    def add(flag: str, **options: Any) -> None:
        if flag not in without:
            group.add_argument(flag, **options)

    return add


def _protocol_in_help(name: str) -> str:
    words = PROTOCOLS[name].in_help
    return f"{name} ({words})" if words else name


def _add_network_options(parser: argparse.ArgumentParser, without: Container[str] = ()) -> None:
    """Options of everything that runs the network."""
    add = _adder(parser, "network", without)
    add("--dims", type=dims, metavar="D", help="features: 64, 192, 768 or 2048 (default)")
    add(
        "--protocol",
        type=one_of(*PROTOCOLS, meanings=OF_TOOLS),
        metavar="NAME",
        help=f"how images are resized, which changes the number: {', '.join(map(_protocol_in_help, PROTOCOLS))}",
    )
    add(
        "--extractor",
        type=_extractor,
        action="append",
        metavar="FILE",
        help="another network, FILE.onnx (docs/extractors.md); default: inception"
        + (". Given several times: a table of them all, from one pass over the images" * (parser.prog in _OF_SEVERAL)),
    )
    add("--input", metavar="SPEC", help="its input spec; default: FILE.fastfid.json beside FILE.onnx")
    add("--device", type=device, metavar="DEV", help="auto (default: CUDA if there is any), cpu, cuda or cuda:N")
    add(
        "--precision",
        type=one_of(*PRECISIONS),
        default="float32",
        metavar="NAME",
        help="float32 (default); tf32 or float16 on CUDA, which change the number (docs/precision.md)",
    )
    add("--weights", metavar="FILE", help="Inception weights (default: FASTFID_WEIGHTS, the cache, fetched once)")
    add("--threads", type=at_least(1), metavar="N", help="threads to compute with; default: the CPUs it may use")
    add("--num-workers", type=at_least(0), metavar="N", help="threads that decode images; default: min(8, CPUs)")
    add(
        "--batch-size",
        type=at_least(1),
        default=50,
        metavar="N",
        help="accepted for pytorch-fid's sake; never changes a number",
    )


def _add_image_options(parser: argparse.ArgumentParser, without: Container[str] = ()) -> None:
    """Options of everything that reads images."""
    add = _adder(parser, "images", without)
    add_selection_options(add)
    _add_error_options(add)


def add_selection_options(add: Callable[..., Any]) -> None:
    """Which images, and how their values are taken."""
    add("--recursive", action="store_true", help="search sub-folders too (hidden ones never)")
    add("--any-case", action="store_true", help="take upper-case file extensions too")
    add("--match", metavar="PATTERN", help="take only pictures with such a name, as '*_fake_B.png'")
    add("--num", type=at_least(1), metavar="N", help="use a random subset of N images of each source")
    add("--seed", type=at_least(0), default=0, metavar="N", help="seed of that subset; default: 0")
    add("--key", metavar="NAME", help="array of images in an .npz; default: arr_0")
    add(
        "--value-range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="black and white of float arrays, as -1 1; without it they are refused",
    )
    add(
        "--to-uint8",
        type=one_of("round", "truncate", "floor-127.5", "floor-128"),
        metavar="RULE",
        help="how float arrays become grey levels: round (default with --value-range), truncate (as torchmetrics), "
        "floor-127.5 (as guided-diffusion), floor-128 (as DiT)",
    )
    add("--column", metavar="NAME", help="column of images in a .parquet; default: image, or the only one")
    add("--alpha", action="store_true", help="composite on white (default: drop alpha, as pytorch-fid)")
    add("--exif", action="store_true", help="apply the EXIF orientation (default: ignore it, as pytorch-fid)")
    add(
        "--labels",
        metavar="WHAT",
        help="classes of the images: auto (what the source carries), folder (its sub-folders), or a .csv of name,label",
    )
    add("--max-pixels", type=at_least(1), metavar="N", help="refuse larger images undecoded; default: 89 million")


def _add_error_options(add: Callable[..., Any]) -> None:
    """What becomes of unreadable images, and of statistics."""
    add(
        "--on-error",
        type=one_of("raise", "skip"),
        default="raise",
        metavar="WHAT",
        help="an unreadable image ends the run (raise, default), or is left out and counted (skip)",
    )
    add("--max-errors", type=at_least(0), metavar="N", help="with skip: fail once more than N images were lost")
    add(
        "--cache",
        action="store_const",
        const=True,
        default=False,
        help="keep statistics of files, and take them when the same files (path, size, times) come again",
    )
    add(
        "--cache-hashes",
        action="store_const",
        const="hashes",
        dest="cache",
        help="recognise the files by their content instead: slower, but also after they were moved",
    )


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add --quiet and --progress."""
    parser.add_argument(
        "--quiet", action="store_true", help="no progress and no remarks; errors and likely mistakes only"
    )
    parser.add_argument(
        "--progress", action="store_true", help="progress in a log too: a line every 30 s where stderr is no terminal"
    )


def check_network_options(parser: Parser, args: argparse.Namespace) -> None:
    """End with a usage error where options of one network are given with another."""
    names = networks(args)
    files = [name for name in names if name != INCEPTION]
    given = getattr(args, "input", None)
    if given is not None and not files:
        parser.error("--input: is of another network, which --extractor FILE.onnx names")
    if given is not None and len(files) > 1:
        parser.error("--input: is of one network, and there are several: lay FILE.fastfid.json beside each FILE.onnx")
    if INCEPTION not in names:
        for name in ("dims", "protocol", "weights"):
            if getattr(args, name) is not None:
                parser.error(f"--{name}: is of the Inception network, and --extractor is {files[0]}: leave one out")
    if len(set(names)) < len(names):
        parser.error(f"--extractor: {max(names, key=names.count)} comes twice")
    if len(names) == 1:
        return
    if parser.prog not in _OF_SEVERAL or getattr(args, "save_stats", False):
        if parser.prog == "fastfid stats" or getattr(args, "save_stats", False):
            parser.error("--extractor: statistics are of one extractor: give one")
        parser.error(f"--extractor: {parser.prog} takes one: give one, or run each by itself")
    for option in ("force", "per_class"):
        if getattr(args, option):
            parser.error(f"--{option.replace('_', '-')}: is for one extractor: leave it out, or run each by itself")


def networks(args: argparse.Namespace) -> list[str]:
    """Return the names of the extractors: ``inception``, and files."""
    return getattr(args, "extractor", None) or [INCEPTION]


def open_network(args: argparse.Namespace, name: str) -> Any:
    """Return the extractor of a file."""
    from fastfid.features.onnx_model import OnnxExtractor  # loads ONNX Runtime

    return OnnxExtractor(name, args.input, device=args.device or "auto", precision=args.precision)


def fid_options(args: argparse.Namespace, *, reads_images: bool) -> dict[str, Any]:
    """Return the keywords of compute_fid and compute_statistics that the command line gives.

    Another network than Inception is opened here, if there are images for it.
    """
    apart = ("threads", "extractor", "input")
    given = {name: getattr(args, name, None) for name in _reading_options() if name not in apart}
    if reads_images and networks(args) != [INCEPTION]:
        given["extractor"] = open_network(args, *networks(args))
    options = {name: tuple(x) if isinstance(x, list) else x for name, x in given.items() if x is not None}
    return {**options, "progress": progress_mode(args)}


def selection_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the keywords of open_source that the command line of inspect gives."""
    parser = Parser(add_help=False)
    add_selection_options(parser.add_argument)
    given = {action.dest: getattr(args, action.dest) for action in parser._actions}
    return {name: tuple(x) if isinstance(x, list) else x for name, x in given.items() if x is not None}


def _reading_options() -> Sequence[str]:
    """Return the names of all options of the network and of the images."""
    parser = Parser(add_help=False)
    add_source_options(parser)
    return list(dict.fromkeys(action.dest for action in parser._actions))


# Options of the network and of the images that leave the number as it is, or change it only with another of them.
_WITHOUT_EFFECT = (
    "device",
    "threads",
    "num_workers",
    "batch_size",
    "seed",
    "max_pixels",
    "max_errors",
    "cache",
    "labels",
)


def progress_mode(args: argparse.Namespace) -> Any:
    """Return the value of the library's keyword `progress`."""
    if args.quiet:
        return False
    return "lines" if args.progress else "auto"


def superfluous(parser: argparse.ArgumentParser, args: argparse.Namespace) -> str | None:
    """Name the options that would have changed the number, had there been images to read."""
    names = [name for name in _reading_options() if name not in _WITHOUT_EFFECT]
    given = [name for name in names if getattr(args, name) != parser.get_default(name)]
    if not given:
        return None
    return f"{', '.join('--' + name.replace('_', '-') for name in given)}: ignored, as no image is read"


def chosen_metrics(args: argparse.Namespace) -> Any:
    """Return the metrics that were asked for."""
    from fastfid.metrics import ALL
    from fastfid.metrics.fid import FrechetInceptionDistance

    if args.metrics == ALL:
        return ALL
    # What nobody sees is not computed.
    is_seen = args.metrics or args.json or args.append is not None or not args.quiet
    fid = FrechetInceptionDistance(needs_standard_error=bool(is_seen))
    return [fid if name == fid.name else name for name in args.metrics or [fid.name]]


def with_labels_of_each(args: argparse.Namespace, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options with the labels of each side, where the second has labels of its own."""
    if args.fake_labels is None:
        return options
    fake = None if args.fake_labels == "none" else args.fake_labels
    return {**options, "labels": {"real": options.get("labels"), "fake": fake}}
