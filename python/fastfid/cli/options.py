"""The parsers of the command line."""

import argparse
from collections.abc import Callable, Container, Sequence
from typing import Any

from fastfid._version import __version__
from fastfid.cli.engines import add_engine_options
from fastfid.cli.parser import COMMANDS, Parser, at_least, device, dims, metrics, one_of
from fastfid.metrics import ALL, METRICS
from fastfid.precisions import PRECISIONS
from fastfid.protocols import OF_TOOLS, PROTOCOLS

__all__ = [
    "INCEPTION",
    "PARSERS",
    "check_network_options",
    "fid_options",
    "networks",
    "open_network",
    "selection_options",
    "superfluous",
]

INCEPTION = "inception"  # the default of --extractor
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


def _add_source_options(parser: argparse.ArgumentParser, without: Container[str] = ()) -> None:
    """Add the options of all that reads images, but those `without` which a command does."""
    _add_network_options(parser, without)
    _add_image_options(parser, without)


def _extractor(text: str) -> str:
    if text != INCEPTION and not text.endswith(".onnx"):
        raise argparse.ArgumentTypeError(f"expected {INCEPTION} or FILE.onnx, got {text!r}")
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
        + (". Given several times: a table of them all, from one pass over the images" * (parser.prog == "fastfid")),
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
    _add_selection_options(add)
    _add_error_options(add)


def _add_selection_options(add: Callable[..., Any]) -> None:
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


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--quiet", action="store_true", help="no progress and no remarks; errors and likely mistakes only"
    )
    parser.add_argument(
        "--progress", action="store_true", help="progress in a log too: a line every 30 s where stderr is no terminal"
    )


def _fid_parser() -> Parser:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  fastfid {name:{width}}  {what}" for name, what in COMMANDS.items())
    parser = Parser(
        prog="fastfid",
        usage="fastfid [options] PATH PATH",
        description=_DESCRIPTION.replace("{commands}", commands),
        epilog=_EPILOG,
    )
    parser.add_argument(
        "path", nargs=2, metavar="PATH", help="the real set and the generated one, or statistics (.npz)"
    )
    parser.add_argument(
        "--metrics",
        type=metrics,
        metavar="NAMES",
        help=f"metrics from one pass over the images, with commas between: {', '.join(METRICS)}; or {ALL} that can be "
        "computed; a tool's convention as kid:torch-fidelity (docs/metrics.md); default: the FID, printed as "
        "pytorch-fid does",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object (docs/json.md)")
    parser.add_argument(
        "--append",
        metavar="FILE",
        help="add that object to FILE as one line (JSON lines); several runs may do so at once",
    )
    parser.add_argument(
        "--hash-inputs",
        action="store_true",
        help="put a hash of each side's files (names and contents) into it",
    )
    parser.add_argument(
        "--store",
        metavar="DIR",
        help="keep the features of each side in a folder below DIR, which is itself a PATH for later runs; an "
        "interrupted run goes on (docs/metrics.md)",
    )
    _add_run_options(parser, required=False)
    add_engine_options(parser)
    parser.add_argument(
        "--per-class",
        action="store_true",
        help="the metrics of each class too, as a table, from the --labels of both sides or of one (docs/classes.md)",
    )
    parser.add_argument(
        "--fake-labels",
        metavar="WHAT",
        help="the --labels of the second PATH, where they come from another place than those of the first; none: it "
        "has none",
    )
    parser.add_argument("--force", action="store_true", help="compare although protocol, network or precision differ")
    parser.add_argument(
        "--save-stats", action="store_true", help="write the statistics of the first path to the second"
    )
    _add_output_options(parser)
    parser.add_argument("--version", action="version", version=f"fastfid {__version__}")
    _add_source_options(parser)
    return parser


def _add_run_options(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        "--run-dir",
        metavar="DIR",
        required=required,
        help="keep what was read in DIR, task by task: a run that was killed goes on there (docs/scale.md)",
    )
    changed = parser.add_mutually_exclusive_group()
    changed.add_argument("--fresh", action="store_true", help="start over where DIR has a run of something else")
    changed.add_argument(
        "--extend", action="store_true", help="keep what was read where images were only added at the end of a set"
    )


def _stats_parser() -> Parser:
    parser = Parser(
        prog="fastfid stats",
        usage="fastfid stats [options] SOURCE -o FILE.npz",
        description="Compute the statistics (mean and covariance of the features) of one source and keep "
        "them as an .npz that fastfid, pytorch-fid and the other tools read.",
    )
    parser.add_argument("source", metavar="SOURCE", help="a folder, .zip, .tar, .parquet, pattern, .npz or .npy")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the .npz to write")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists; else that is an error")
    parser.add_argument(
        "--no-rows",
        action="store_true",
        help="leave out the sample of 2,048 features, 16 MB, from which standard errors are made",
    )
    parser.add_argument(
        "--spatial",
        action="store_true",
        help="keep the statistics of the spatial features too, for the sFID: 32 MB, and 16 MB of rows; with --protocol "
        "tensorflow guided-diffusion's evaluator reads the file",
    )
    _add_run_options(parser, required=False)
    add_engine_options(parser)
    _add_output_options(parser)
    _add_source_options(parser)
    return parser


# Options without which the evaluator's protocol does: its network is fixed, and it needs all images in their order.
_NOT_OF_ADM = (
    *("--dims", "--protocol", "--extractor", "--input", "--batch-size"),
    *("--num", "--seed", "--labels", "--cache", "--cache-hashes"),
)


def _adm_parser() -> Parser:
    parser = Parser(
        prog="fastfid adm",
        usage="fastfid adm [options] REFERENCE SAMPLES",
        description="The five numbers of guided-diffusion's evaluator, in its order and under its names, from one pass "
        "over the images, without TensorFlow. Both files are .npz with images under arr_0, uint8 [n, h, w, 3]. "
        "Where a file has statistics too (mu, sigma, mu_s, sigma_s), as the references of guided-diffusion, FID and "
        "sFID take these; precision and recall take the images. The Inception Score is the mean over blocks of 5,000 "
        "samples in their order, so shuffle samples that are sorted by class. A number that cannot be computed has the "
        "reason on its line.",
        epilog="""\
examples:
  fastfid adm VIRTUAL_imagenet256_labeled.npz samples.npz      ADM's reference, 50,000 samples
  fastfid adm VIRTUAL_imagenet256_labeled.npz samples/         samples in a folder, in the order of their names
  fastfid adm reference.npz samples.npz --store features/      goes on after an interruption
  fastfid stats train/ --protocol tensorflow --spatial -o s.npz   statistics for a reference of one's own

The Inception Score needs weights with the classifier, which --weights or FASTFID_WEIGHTS names. What differs from the
TensorFlow script, and by how much: docs/adm.md. Exit code 0 if at least the FID was computed.
""",
    )
    parser.add_argument("reference", metavar="REFERENCE", help="an .npz with images, statistics or both; or any source")
    parser.add_argument("samples", metavar="SAMPLES", help="an .npz with the generated images; or any source")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object (docs/json.md), with standard errors"
    )
    parser.add_argument(
        "--store",
        metavar="DIR",
        help="keep the features of each side in a folder below DIR, which is itself a source for later runs; an "
        "interrupted run goes on (docs/metrics.md)",
    )
    parser.add_argument("--force", action="store_true", help="compare although protocol, network or precision differ")
    parser.add_argument(
        "--protocol",
        type=one_of(*PROTOCOLS, meanings=OF_TOOLS),
        default="tensorflow",
        metavar="NAME",
        help="how images are resized; default: tensorflow, which is ADM's, the others give other numbers",
    )
    _add_output_options(parser)
    _add_source_options(parser, _NOT_OF_ADM)
    return parser


def _compare_parser() -> Parser:
    parser = Parser(
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
    parser.add_argument(
        "path", nargs="*", metavar="PATH", help="the reference, then two candidates or more: images or statistics"
    )
    parser.add_argument(
        "--records", nargs="+", metavar="FILE", help="compare records that --json printed or --append wrote"
    )
    parser.add_argument(
        "--metrics",
        type=metrics,
        metavar="NAMES",
        help="these metrics of each candidate, as a table in the order given; as in: fastfid --metrics",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object (docs/json.md)")
    parser.add_argument(
        "--store",
        metavar="DIR",
        help="keep the features of each side in a folder below DIR, which is itself a PATH for later runs; an "
        "interrupted run goes on (docs/metrics.md)",
    )
    parser.add_argument("--force", action="store_true", help="compare although protocol, network or precision differ")
    _add_output_options(parser)
    _add_source_options(parser)
    return parser


def _inspect_parser() -> Parser:
    parser = Parser(
        prog="fastfid inspect",
        usage="fastfid inspect [options] SOURCE",
        description="What a source holds: how many images, their sizes, modes, formats and classes, and what was "
        "passed over and why. No picture is decoded. Of more than 10,000 images, 10,000 headers are read, which a hash "
        "chooses.",
    )
    parser.add_argument("source", metavar="SOURCE", help="a folder, .zip, .tar, .parquet, pattern, .npz or .npy")
    parser.add_argument("--all", action="store_true", help="read the headers of all images")
    parser.add_argument("--json", action="store_true", help="print one JSON object (docs/json.md)")
    parser.add_argument(
        "--add-reference",
        metavar="NAME",
        help="SOURCE is a statistics file: from now on, records and inspect say NAME where statistics have its numbers",
    )
    _add_selection_options(parser.add_argument_group("images").add_argument)
    parser.set_defaults(labels="auto")
    return parser


def _weights_parser() -> Parser:
    parser = Parser(
        prog="fastfid weights",
        description="The FID Inception weights (Google's Inception, 2015-12-05, Apache-2.0).",
    )
    parser.add_argument(
        "action",
        nargs="?",
        default="show",
        type=one_of("show", "get", "verify"),
        metavar="ACTION",
        help="show (default): where and what they are; get: bring them into the cache, fetched or from --weights FILE; "
        "verify: read them, check every hash, fetch nothing",
    )
    parser.add_argument("--weights", metavar="FILE", help="this file, not FASTFID_WEIGHTS, the cache or the network")
    return parser


def _info_parser() -> Parser:
    parser = Parser(prog="fastfid info", description="Facts of the build and of this machine, for a bug report.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _demo_parser() -> Parser:
    parser = Parser(
        prog="fastfid demo",
        description="FID of 128 crops of real photographs against the same crops disturbed five ways in three rising "
        "levels, as in figure 3 of Heusel et al. 2017: a table on stdout and one PNG plot. Takes 2 to 3 minutes on 2 "
        "cores. Needs scikit-image and matplotlib: pip install '.[demo]' in fastfid's source folder.",
    )
    parser.add_argument("-o", "--output", default="fastfid-demo.png", metavar="FILE", help="plot; default: %(default)s")
    parser.add_argument("--device", type=device, metavar="DEV", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument("--weights", metavar="FILE", help="Inception weights file")
    _add_output_options(parser)
    return parser


def _completion_parser() -> Parser:
    parser = Parser(
        prog="fastfid completion",
        description='Print a script that completes commands and options: eval "$(fastfid completion bash)".',
    )
    parser.add_argument("shell", type=one_of("bash", "zsh"), metavar="SHELL", help="bash or zsh")
    return parser


def _parser_of_step(name: str) -> Callable[[], Parser]:
    def make() -> Parser:
        from fastfid.cli import steps  # which imports this file

        return steps.PARSERS[name]()

    return make


def _extractors_parser() -> Parser:
    from fastfid.cli import extractors

    return extractors.parser()


def _study_parser() -> Parser:
    from fastfid.cli import study  # which imports this file

    return study.parser()


def _report_parser() -> Parser:
    from fastfid.cli import report  # which imports this file

    return report.parser()


# The parser of each command. "" is the command without a name.
PARSERS: dict[str, Callable[[], Parser]] = {
    "": _fid_parser,
    "adm": _adm_parser,
    "compare": _compare_parser,
    "report": _report_parser,
    "stats": _stats_parser,
    "inspect": _inspect_parser,
    "plan": _parser_of_step("plan"),
    "part": _parser_of_step("part"),
    "reduce": _parser_of_step("reduce"),
    "extractors": _extractors_parser,
    "study": _study_parser,
    "weights": _weights_parser,
    "info": _info_parser,
    "demo": _demo_parser,
    "completion": _completion_parser,
}


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
    if parser.prog != "fastfid" or args.save_stats:
        if parser.prog == "fastfid stats" or getattr(args, "save_stats", False):
            parser.error("--extractor: statistics are of one extractor: give one")
        parser.error(f"--extractor: {parser.prog} takes one: give one, or run each by itself")
    for option in ("force", "run_dir", "engine", "per_class"):
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
    _add_selection_options(parser.add_argument)
    given = {action.dest: getattr(args, action.dest) for action in parser._actions}
    return {name: tuple(x) if isinstance(x, list) else x for name, x in given.items() if x is not None}


def _reading_options() -> Sequence[str]:
    """Return the names of all options of the network and of the images."""
    parser = Parser(add_help=False)
    _add_source_options(parser)
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
