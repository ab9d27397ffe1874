"""Several extractors on the command line."""

import argparse
from typing import Any

from fastfid.cli.options import INCEPTION, fid_options, networks, open_network
from fastfid.evaluation.extractors import ExtractorsEvaluation, evaluate_extractors
from fastfid.metrics import make_metrics
from fastfid.metrics.base import outputs_needed

__all__ = ["evaluate_networks"]


def evaluate_networks(args: argparse.Namespace, metrics: Any, run_dir: Any, engine: Any) -> ExtractorsEvaluation:
    """Return the metrics of the two paths for each extractor that was given."""
    options = fid_options(args, reads_images=False)  # the networks are opened below
    of_inception: dict[str, Any] = {
        name: options.pop(name) for name in ("dims", "protocol", "weights") if name in options
    }
    for name in ("device", "precision", "batch_size"):
        options.pop(name, None)
    opened = {
        name: _inception(args, metrics, of_inception) if name == INCEPTION else open_network(args, name)
        for name in networks(args)
    }
    real, fake = args.path
    more = {"hash_inputs": args.hash_inputs, "store": args.store, "run_dir": run_dir, "engine": engine}
    return evaluate_extractors(real, fake, opened, metrics=metrics, **more, **options)


def _inception(args: argparse.Namespace, metrics: Any, options: dict[str, Any]) -> Any:
    from fastfid.features.make import make_extractor, outputs_of_inception
    from fastfid.options import DEFAULT_DIMS, DEFAULT_PROTOCOL

    dims, protocol = options.get("dims", DEFAULT_DIMS), options.get("protocol", DEFAULT_PROTOCOL)
    outputs = outputs_needed(make_metrics(metrics).values()) & outputs_of_inception(dims, protocol)
    return make_extractor(dims, protocol, args.device or "auto", options.get("weights"), args.precision, outputs)
