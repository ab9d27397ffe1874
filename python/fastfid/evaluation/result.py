"""The result of an evaluation: values by name, with a description of the two sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastfid._html import table
from fastfid.evaluation.class_results import PerClass
from fastfid.metrics.base import Result, Sample
from fastfid.metrics.several import NamedResults
from fastfid.record import EvaluationRecord, evaluation_record

__all__ = ["EvaluatedSet", "Evaluation"]


@dataclass(frozen=True)
class EvaluatedSet:
    """One of the two sets of an :class:`Evaluation`.

    Attributes
    ----------
    name : str
        Name of the set in messages.
    meta : dict
        Provenance of the features.
    n : int or None
        Number of images. None if the statistics do not state it.
    """

    name: str
    meta: Mapping[str, Any]
    n: int | None

    @classmethod
    def of(cls, sample: Sample) -> "EvaluatedSet":
        """Return the name, provenance and number of images of a sample, without its accumulated features."""
        return cls(sample.name, sample.meta, sample.n)

    def __repr__(self) -> str:
        """Return one line, without the provenance."""
        return f"EvaluatedSet(name={self.name!r}, n={self.n})"


@dataclass(frozen=True)
class Evaluation(NamedResults):
    """The result of :func:`evaluate`: a mapping from names to results, with a description of the two sets.

    Attributes
    ----------
    results : dict of str to Result
        Results by name, in the requested order: the metric's name, with a convention as ``kid:torch-fidelity``; for
        metrics of several values those of the values, as ``precision``.
    real, fake : EvaluatedSet
        Name, provenance and number of images of the two sets.
    dims : int
        Number of features per image.
    assumed_protocol : dict
        For ``real`` and ``fake``: the protocol assumed for statistics that do not name one, else None.
    skipped : dict
        For ``real`` and ``fake``: the images that were left out.
    cached : dict
        For ``real`` and ``fake``: whether the statistics came from the cache.
    device : str or None
        Device on which the network ran. None if no image was read.
    seconds : dict
        ``load``, ``features``, ``distance`` and ``total``.
    date : str
        When it began, in ISO 8601, UTC.
    host : str
        The machine's name.
    threads : int
        With how many threads it computed.
    options : dict
        Every option that can change the number, as it was in effect.
    missing : dict of str to str
        With ``metrics="all"``, and with several extractors: the metrics that could not be computed, and why.
    inputs : dict or None
        With `hash_inputs`, for ``real`` and ``fake`` each: number, bytes and SHA-256 of the files; None for a side that
        is not made of files.
    sides : dict of str to (EvaluatedSet, EvaluatedSet)
        The two sets of each result by name. They differ from `real` and `fake` where a file has both statistics and
        images, as the references of ADM.
    per_class : PerClass or None
        With `per_class`: the results of each class, as ``evaluation.per_class["cat"]["fid"]``.
    run : dict or None
        With `run_dir` or `engine`: ``engine``, ``workers``, ``retries``, ``resumed``, ``runtimes``; see docs/json.md.
    sources : dict
        For ``real`` and ``fake``: how many images the source has, and the sizes, modes and formats of those that were
        decoded; None for a side that is no images.
    known_as : dict
        For ``real`` and ``fake``: the name of the known reference whose numbers the given statistics have, else None.

    Examples
    --------
    >>> from fastfid import evaluate
    >>> evaluation = evaluate("real", "fake", dims=64)  # two folders of four pictures
    >>> evaluation["fid"].value > 0, evaluation.real.n
    (True, 4)
    """

    results: Mapping[str, Result]
    real: EvaluatedSet
    fake: EvaluatedSet
    dims: int
    assumed_protocol: Mapping[str, str | None]
    skipped: Mapping[str, list[dict[str, str]]]
    cached: Mapping[str, bool]
    device: str | None
    seconds: Mapping[str, float]
    date: str
    host: str
    threads: int
    options: Mapping[str, Any]
    missing: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, Mapping[str, Any] | None] | None = None
    sides: Mapping[str, tuple[EvaluatedSet, EvaluatedSet]] = field(default_factory=dict, repr=False)
    per_class: PerClass | None = None
    run: Mapping[str, Any] | None = None
    sources: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    known_as: Mapping[str, str | None] = field(default_factory=dict)

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={result.value:.6g}" for name, result in self.results.items())
        return f"Evaluation({values}, real={self.real.name!r}, fake={self.fake.name!r})"

    def _repr_html_(self) -> str:
        """Return a table for a notebook: metric, value, standard error and n of the two sets."""
        counts = " and ".join("unknown" if side.n is None else f"{side.n:,}" for side in (self.real, self.fake))
        rows = [
            (name, f"{result.value:.6g}", "" if (e := result.standard_error) is None else f"\u00b1 {e:.2g}", counts)
            for name, result in self.results.items()
        ]
        head = ("metric", "value", "standard error", "n")
        whole = table(head, rows, caption=f"{self.real.name} and {self.fake.name}")
        return whole if self.per_class is None else whole + self.per_class._repr_html_()

    def to_dict(self, *, command: Sequence[str] | None = None) -> EvaluationRecord:
        """Return all that is known, as plain JSON types: the object of ``--json`` (docs/json.md).

        Parameters
        ----------
        command : list of str, optional
            The command line that asked for it, for the record.
        """
        return evaluation_record(self, command)
