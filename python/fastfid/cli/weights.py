"""The command ``weights``: the Inception weights."""

from collections.abc import Sequence

from fastfid.cli.parser import Parser, one_of

__all__ = ["parser", "run"]


def parser() -> Parser:
    """Return the parser of ``fastfid weights``."""
    made = Parser(
        prog="fastfid weights",
        description="The FID Inception weights (Google's Inception, 2015-12-05, Apache-2.0).",
    )
    made.add_argument(
        "action",
        nargs="?",
        default="show",
        type=one_of("show", "get", "verify"),
        metavar="ACTION",
        help="show (default): where and what they are; get: bring them into the cache, fetched or from --weights FILE; "
        "verify: read them, check every hash, fetch nothing",
    )
    made.add_argument("--weights", metavar="FILE", help="this file, not FASTFID_WEIGHTS, the cache or the network")
    return made


def run(argv: Sequence[str]) -> int:
    """Run ``fastfid weights`` with these words."""
    args = parser().parse_args(argv)
    from fastfid.features import weights

    if args.action == "show":
        print(weights.describe(args.weights))
    else:
        found = weights.find_weights(args.weights, fetch=args.action == "get")
        if args.action == "get" and args.weights:
            found = weights.keep_in_cache(found)
        print(f"{found.path}: {found.identity}")
    return 0
