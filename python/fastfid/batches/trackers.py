"""Trackers of experiments: TensorBoard, Weights & Biases, MLflow, by the methods that they have."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

from fastfid.evaluation.result import Evaluation

__all__ = ["check_step", "logger_of", "values_of"]


def logger_of(writer: Any) -> Callable[[Mapping[str, float], int], None]:
    """Return what logs values at a step. TypeError if the writer has no method for it."""
    add_scalar, log_metric, log = (getattr(writer, name, None) for name in ("add_scalar", "log_metric", "log"))

    def one_by_one(values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            if callable(add_scalar):
                add_scalar(name, value, step)
            else:
                assert callable(log_metric)
                log_metric(name, value, step=step)

    def at_once(values: Mapping[str, float], step: int) -> None:
        assert callable(log)
        log(dict(values), step=step)

    if callable(add_scalar) or callable(log_metric):
        return one_by_one
    if callable(log):
        return at_once
    raise TypeError(
        "writer: expected an object with add_scalar (TensorBoard's SummaryWriter), log_metric (mlflow) or log (a run of"
        f" Weights & Biases); got {type(writer).__name__}"
    )


def check_step(step: Any) -> int:
    """Return the step as an int. TypeError if it is no integer."""
    try:
        if isinstance(step, bool):
            raise TypeError
        return operator.index(step)
    except TypeError:
        raise TypeError(f"step: expected an integer, got {step!r}") from None


def values_of(found: Evaluation) -> dict[str, float]:
    """Return what is logged, by name."""
    values: dict[str, float] = {}
    for name, result in found.items():
        # MLflow keeps a file for each name, which a colon, or a slash after another name, would spoil.
        name = name.replace(":", "_")
        values[name] = float(result.value)
        if result.standard_error is not None:
            values[f"{name}_standard_error"] = float(result.standard_error)
    for side, one in (("real", found.real), ("fake", found.fake)):
        if one.n is not None:
            values[f"images_{side}"] = float(one.n)
    return values
