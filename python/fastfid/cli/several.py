"""Several extractors on the command line."""

import argparse
import json
import sys
from typing import Any

from fastfid.cli.options import INCEPTION, fid_options, networks, open_network, with_labels_of_each
from fastfid.cli.output import remark, remark_on_kept
from fastfid.evaluation.extractors import ExtractorsEvaluation, evaluate_extractors
from fastfid.evaluation.joint_steps import plan_extractors
from fastfid.metrics import make_metrics
from fastfid.metrics.base import outputs_needed

__all__ = ["evaluate_networks", "plan_networks", "print_table"]


def evaluate_networks(args: argparse.Namespace, metrics: Any, run_dir: Any, engine: Any) -> ExtractorsEvaluation:
    """Return the metrics of the two paths for each extractor that was given."""
    opened, options = _opened(args, metrics)
    real, fake = args.path
    more = {"hash_inputs": args.hash_inputs, "store": args.store, "run_dir": run_dir, "engine": engine}
    return evaluate_extractors(real, fake, opened, metrics=metrics, **more, **options)


def plan_networks(args: argparse.Namespace, metrics: Any, run_dir: Any) -> int:
    """Make the plan of the two paths for the extractors that were given; return the number of tasks."""
    opened, options = _opened(args, metrics)
    for name in ("num_workers", "progress", "cache"):  # of each process
        options.pop(name, None)
    real, fake = args.path
    return plan_extractors(real, fake, opened, run_dir, metrics=metrics, **options)


def print_table(args: argparse.Namespace, found: ExtractorsEvaluation, record: Any) -> None:
    """Print a table, or the record, and say of each extractor what it has not."""
    for name, one in found.items():
        remark_on_kept(args, one, f"{name}: ")
        for metric, reason in one.missing.items():
            remark(f"{name}: {metric}: not computed: {reason}")
    print(json.dumps(record, indent=2, allow_nan=False) if args.json else found.table())
    sys.stdout.flush()


def _opened(args: argparse.Namespace, metrics: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the extractors by name, and the options that are not theirs."""
    options = with_labels_of_each(args, fid_options(args, reads_images=False))  # the networks are opened below
    of_inception: dict[str, Any] = {
        name: options.pop(name) for name in ("dims", "protocol", "weights") if name in options
    }
    for name in ("device", "precision", "batch_size"):
        options.pop(name, None)
    opened = {
        name: _inception(args, metrics, of_inception) if name == INCEPTION else open_network(args, name)
        for name in networks(args)
    }
    return opened, options


def _inception(args: argparse.Namespace, metrics: Any, options: dict[str, Any]) -> Any:
    from fastfid.features.make import make_extractor, outputs_of_inception
    from fastfid.options import DEFAULT_DIMS, DEFAULT_PROTOCOL

    dims, protocol = options.get("dims", DEFAULT_DIMS), options.get("protocol", DEFAULT_PROTOCOL)
    outputs = outputs_needed(make_metrics(metrics).values()) & outputs_of_inception(dims, protocol)
    return make_extractor(dims, protocol, args.device or "auto", options.get("weights"), args.precision, outputs)
