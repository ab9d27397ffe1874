"""The command ``adm``: the five numbers of guided-diffusion's evaluator."""

import json
from collections.abc import Sequence

from fastfid.cli.options import add_force_option, add_output_options, add_source_options, add_store_option, fid_options
from fastfid.cli.output import remark, sample_size_remark
from fastfid.cli.parser import Parser, one_of
from fastfid.cli.start import check_exists, parse, prepare
from fastfid.protocols import OF_TOOLS, PROTOCOLS

__all__ = ["parser", "run"]


# Options without which the evaluator's protocol does: its network is fixed, and it needs all images in their order.
_NOT_OF_ADM = (
    *("--dims", "--protocol", "--extractor", "--input", "--batch-size"),
    *("--num", "--seed", "--labels", "--cache", "--cache-hashes"),
)


def parser() -> Parser:
    """Return the parser of ``fastfid adm``."""
    made = Parser(
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
    made.add_argument("reference", metavar="REFERENCE", help="an .npz with images, statistics or both; or any source")
    made.add_argument("samples", metavar="SAMPLES", help="an .npz with the generated images; or any source")
    made.add_argument("--json", action="store_true", help="print one JSON object (docs/json.md), with standard errors")
    add_store_option(made)
    add_force_option(made)
    made.add_argument(
        "--protocol",
        type=one_of(*PROTOCOLS, meanings=OF_TOOLS),
        default="tensorflow",
        metavar="NAME",
        help="how images are resized; default: tensorflow, which is ADM's, the others give other numbers",
    )
    add_output_options(made)
    add_source_options(made, _NOT_OF_ADM)
    return made


def run(argv: Sequence[str]) -> int:
    """Run ``fastfid adm`` with these words."""
    args = parse(parser(), argv)
    from fastfid.evaluation.adm import LABELS, evaluate_adm

    for path in (args.reference, args.samples):
        check_exists(path)
    prepare(args, reads_images=True)
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
    remark(sample_size_remark(found.dims, [found.real, found.fake]))
    return 0
