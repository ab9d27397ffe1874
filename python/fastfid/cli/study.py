"""The command ``study``: experiments with metrics on images of one's own."""

import argparse
from collections.abc import Callable, Sequence

from fastfid.cli.options import add_output_options, add_source_options, fid_options
from fastfid.cli.output import remark
from fastfid.cli.parser import Parser, at_least, metrics, one_of
from fastfid.cli.start import check_exists, parse, prepare
from fastfid.metrics import ALL

__all__ = ["parser", "run"]

_STUDIES = {
    "disturb": "metrics against the level of six disturbances, as figure 3 of Heusel et al. 2017",
    "samples": "FID against the number of images, its bias, and FID-infinity",
}
# pytorch-fid's flag that changes nothing, labels, and the cache of statistics: a study reads each set once.
_NOT_OF_A_STUDY = ("--batch-size", "--labels", "--cache", "--cache-hashes")


def parser() -> Parser:
    """Return the parser of ``fastfid study``."""
    whole = Parser(
        prog="fastfid study",
        usage="fastfid study {disturb,samples} SOURCE [options]",
        description="Experiments with metrics on images of your own (docs/paper.md). Needs scikit-image and\n"
        "matplotlib: pip install '.[demo]' in fastfid's source folder.\n\n"
        + "\n".join(f"  fastfid study {name:8} {what}" for name, what in _STUDIES.items()),
        epilog="fastfid study disturb --help and fastfid study samples --help list the options.",
    )
    whole.add_argument("study", type=one_of(*_STUDIES), metavar="STUDY", help="disturb or samples")
    return whole


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _levels(text: str) -> tuple[str, list[float]]:
    """Return the name of a disturbance and its levels."""
    name, equals, values = text.partition("=")
    try:
        if equals:
            return name, [float(value) for value in values.split(",")]
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected NAME=LEVEL,LEVEL,..., as blur=1,2,4; got {text!r}")


def _of_study(name: str, usage: str, epilog: str, description: str) -> Parser:
    made = Parser(prog=f"fastfid study {name}", usage=usage, description=description, epilog=epilog)
    made.add_argument(
        "source", metavar="SOURCE", help="a folder, .zip, .tar, .parquet, pattern, .npz or .npy of images, or a URL"
    )
    return made


def _disturb_parser() -> Parser:
    made = _of_study(
        "disturb",
        "fastfid study disturb SOURCE [--contaminate OTHER] [-o DIR] [options]",
        """\
examples:
  fastfid study disturb photos/ --contaminate drawings/ -o study
  fastfid study disturb photos.zip --metrics fid,kid --disturbances blur --levels blur=0.5,1,2,4
  fastfid study disturb photos/ --num 500 --dims 64          a first look, in a minute

disturbances and their levels: noise (share of noise), blur (sigma in pixels), rectangles (side as a share of the
image), swirl (strength), salt-and-pepper (share of pixels), contamination (share of images of OTHER).
""",
        "Metrics of a set of images under rising levels of disturbances, as figure 3 of Heusel et al. 2017. A random "
        "half of the images stays clean; the other half is disturbed and compared with the clean half, at level 0 too. "
        "Prints a table, and writes DIR/disturb.json and DIR/disturb.png. A run that was killed goes on.",
    )
    made.add_argument("-o", "--output", metavar="DIR", default="fastfid-disturb", help="default: %(default)s")
    made.add_argument("--contaminate", metavar="OTHER", help="other images, for the sixth disturbance")
    made.add_argument(
        "--reference",
        metavar="SET",
        help="the clean set, instead of half of SOURCE: images, statistics or a store; all of SOURCE is then disturbed",
    )
    made.add_argument("--disturbances", type=_names, metavar="NAMES", help="with commas between; default: all")
    made.add_argument(
        "--levels",
        type=_levels,
        action="append",
        metavar="NAME=L,L",
        help="levels of a disturbance, as blur=1,2,4; may be given several times; default: those of the paper",
    )
    made.add_argument(
        "--metrics",
        type=metrics,
        metavar="NAMES",
        help="with commas between; default: fid,sfid,kid,prdc,is, without those for which the network lacks something",
    )
    made.add_argument("--fresh", action="store_true", help="start over: what DIR has of a study is removed")
    add_output_options(made)
    add_source_options(made, _NOT_OF_A_STUDY)
    return made


def _samples_parser() -> Parser:
    made = _of_study(
        "samples",
        "fastfid study samples SOURCE [OTHER] [-o DIR] [options]",
        """\
examples:
  fastfid study samples real/ generated/ -o study
  fastfid study samples real/ --dims 64            how large an FID of 0 looks with n images
""",
        "FID of growing random subsets of OTHER to all of SOURCE, with the bias that the closed form for Gaussian "
        "features predicts, and FID-infinity. Without OTHER, one random half of SOURCE is compared with the other. "
        "Prints a table, and writes DIR/samples.json and DIR/samples.png.",
    )
    made.add_argument("other", metavar="OTHER", nargs="?", help="the second set; default: half of SOURCE")
    made.add_argument("-o", "--output", metavar="DIR", default="fastfid-samples", help="default: %(default)s")
    made.add_argument(
        "--sizes",
        type=at_least(3),
        metavar="N",
        default=10,
        help="how many values of n, from 10 to all images; default: %(default)s",
    )
    made.add_argument(
        "--repeats", type=at_least(1), metavar="N", default=3, help="subsets of each n; default: %(default)s"
    )
    add_output_options(made)
    add_source_options(made, _NOT_OF_A_STUDY)
    return made


PARSERS: dict[str, Callable[[], Parser]] = {"disturb": _disturb_parser, "samples": _samples_parser}


def run(argv: Sequence[str]) -> int:
    """Run ``fastfid study`` with these words after it."""
    name = argv[0] if argv else ""
    if name not in PARSERS:
        of_command = parser()
        of_command.parse_args(argv)
        of_command.error(f"expected the name of a study first, got {name!r}")
    made = PARSERS[name]()
    args = parse(made, argv[1:])
    return {"disturb": _run_disturb, "samples": _run_samples}[name](made, args)


def _run_disturb(made: Parser, args: argparse.Namespace) -> int:
    if args.metrics == ALL:
        made.error(f"--metrics: expected names with commas between, got {ALL}")
    from fastfid.study.disturb import disturb, table

    levels: dict[str, list[float]] = {}
    for name, values in args.levels or ():
        if name in levels:
            made.error(f"--levels: {name} comes twice")
        levels[name] = values
    for path in (args.source, args.contaminate, args.reference):
        if path is not None:
            check_exists(path)
    prepare(args, reads_images=True)
    found = disturb(
        args.source,
        args.output,
        contaminate=args.contaminate,
        reference=args.reference,
        disturbances=args.disturbances,
        levels=levels,
        metrics=args.metrics,
        fresh=args.fresh,
        **fid_options(args, reads_images=True),
    )
    for metric, reason in found["missing"].items():
        remark(f"{metric}: not computed: {reason}")
    print(table(found))
    remark(f"{args.output}: disturb.json, disturb.png")
    return 0


def _run_samples(made: Parser, args: argparse.Namespace) -> int:
    from fastfid.study.samples import samples, table

    for path in (args.source, args.other):
        if path is not None:
            check_exists(path)
    prepare(args, reads_images=True)
    given = fid_options(args, reads_images=True)
    found = samples(args.source, args.other, args.output, sizes=args.sizes, repeats=args.repeats, **given)
    print(table(found))
    remark(f"{args.output}: samples.json, samples.png")
    return 0
