"""The command ``extractors``: the table of known extractors, and the export of one to an ONNX file."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastfid.cli.parser import Parser, did_you_mean, one_of

if TYPE_CHECKING:
    from fastfid.features.known import KnownExtractor

__all__ = ["how_to_make", "parser", "run"]


def parser() -> Parser:
    """Return the parser of the command."""
    made = Parser(
        prog="fastfid extractors",
        usage="fastfid extractors [list] [--json]\n       fastfid extractors export NAME CHECKPOINT -o FILE.onnx",
        description="Known networks beside Inception, as DINOv2 and CLIP, each with the preparation of images of the "
        "tool whose number it gives. export makes FILE.onnx and its input spec from the original checkpoint, which "
        "you have; nothing is fetched. It needs torch: pip install '.[export]' in fastfid's source folder.",
        epilog="""\
example:
  fastfid extractors export dinov2-vitl14/dgm-eval dinov2_vitl14_pretrain.pth -o dinov2.onnx
  fastfid real/ generated/ --extractor dinov2.onnx
""",
    )
    made.add_argument(
        "action",
        nargs="?",
        default="list",
        type=one_of("list", "export"),
        metavar="ACTION",
        help="list (default) or export",
    )
    made.add_argument("name", nargs="?", metavar="NAME", help="of the list")
    made.add_argument("checkpoint", nargs="?", metavar="CHECKPOINT", help="a .safetensors, .pth or .bin file")
    made.add_argument("-o", "--output", metavar="FILE.onnx", help="file to write; its spec is laid beside it")
    made.add_argument("--overwrite", action="store_true", help="replace files that exist")
    made.add_argument("--json", action="store_true", help="print the list as JSON")
    return made


def how_to_make(name: str) -> str:
    """Return how the file of a known network is made, for the end of a message; empty if it is none."""
    from fastfid.features.known import KNOWN

    made = f", a known network: fastfid extractors export {name} CHECKPOINT -o FILE.onnx makes its file"
    return made if name in KNOWN else ""


def run(argv: Sequence[str]) -> int:
    """Run the command."""
    known = parser()
    args = known.parse_args(argv)
    if args.action == "export":
        if args.checkpoint is None or args.output is None:
            known.error("export: needs NAME, CHECKPOINT and -o FILE.onnx")
        if args.json:
            known.error("--json: is of the list")
        return _export(known, args.name, args.checkpoint, args.output, overwrite=args.overwrite)
    if args.name is not None or args.output is not None or args.overwrite:
        known.error("list: takes no NAME, no -o and no --overwrite")
    from fastfid.features.known import KNOWN

    rows = list(KNOWN.values())
    print(json.dumps([row.to_dict() for row in rows], indent=2) if args.json else _table(rows))
    return 0


def _export(known: Parser, name: str, checkpoint: str, output: str, *, overwrite: bool) -> int:
    from fastfid._console import remark
    from fastfid.features.known import KNOWN

    if name not in KNOWN:
        known.error(f"expected one of {', '.join(KNOWN)}; got {name!r}{did_you_mean(name, KNOWN)}")
    from fastfid.features.known.export import export_known

    row = KNOWN[name]
    remark(f"licence of the weights, {row.origin.publisher}: {_licence(row)}")
    found = export_known(name, checkpoint, output, overwrite=overwrite)
    for path in found.files:
        print(path)
    remark(f"features differ from torch's by {found.difference:.1g} of the largest; in statistics: {found.identity}")
    if not row.verified:
        remark(f"{name}: unverified: never compared with another implementation on the real checkpoint")
    if row.note:
        remark(f"{name}: {row.note}")
    return 0


def _licence(row: "KnownExtractor") -> str:
    permissive = "" if row.origin.is_permissive else " (no permissive licence)"
    return f"{row.origin.licence}{permissive}"


def _table(rows: Sequence["KnownExtractor"]) -> str:
    """Return a paragraph for each row."""
    lines = []
    for row in rows:
        verified = "verified" if row.verified else "unverified"
        lines += [
            f"{row.name}  ({row.shape.dims} features, {verified})",
            f"  tool        {row.tool}{f'; {row.note}' if row.note else ''}",
            f"  input       {row.spec.protocol}",
            f"  checkpoint  {row.origin.files}",
            f"  publisher   {row.origin.publisher}; licence of the weights: {_licence(row)}",
        ]
    return "\n".join(lines)
