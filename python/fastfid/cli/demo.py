"""The command ``demo``: FID of disturbed photographs."""

from collections.abc import Sequence

from fastfid.cli.options import add_output_options
from fastfid.cli.parser import Parser, device
from fastfid.cli.start import show_warnings

__all__ = ["parser", "run"]


def parser() -> Parser:
    """Return the parser of ``fastfid demo``."""
    made = Parser(
        prog="fastfid demo",
        description="FID of 128 crops of real photographs against the same crops disturbed five ways in three rising "
        "levels, as in figure 3 of Heusel et al. 2017: a table on stdout and one PNG plot. Takes 2 to 3 minutes on 2 "
        "cores. Needs scikit-image and matplotlib: pip install '.[demo]' in fastfid's source folder.",
    )
    made.add_argument("-o", "--output", default="fastfid-demo.png", metavar="FILE", help="plot; default: %(default)s")
    made.add_argument("--device", type=device, metavar="DEV", help="auto (default), cpu, cuda or cuda:N")
    made.add_argument("--weights", metavar="FILE", help="Inception weights file")
    add_output_options(made)
    return made


def run(argv: Sequence[str]) -> int:
    """Run ``fastfid demo`` with these words."""
    args = parser().parse_args(argv)
    from fastfid.demo import run

    show_warnings(args)
    run(args.output, device=args.device or "auto", weights=args.weights, progress=not args.quiet and "lines")
    return 0
