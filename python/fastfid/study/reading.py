"""What the studies read with: one network, some metrics, the options of the sources."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fastfid.evaluation.how import How
from fastfid.evaluation.image_set import ImageSet
from fastfid.evaluation.networks import extractor_beside_all
from fastfid.evaluation.opening import check_given, load_known, load_store, open_images
from fastfid.evaluation.reading import Reading
from fastfid.metrics.base import Metric, check_gives, outputs_needed
from fastfid.metrics.several import Missing
from fastfid.sources.base import ImageSource
from fastfid.study.disturbances import SEED, PickedSource

__all__ = ["Options", "Reader", "halves", "open_given", "open_set"]


@dataclass(frozen=True)
class Options:
    """The keywords of :func:`fastfid.evaluate` that the studies take, checked.

    Attributes
    ----------
    network, reading, sources : dict
        How the network is made, how images are read, and how a source is opened.
    """

    network: Mapping[str, Any]
    reading: Mapping[str, Any]
    sources: Mapping[str, Any]

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "Options":
        """Return the options. TypeError or ValueError for an unknown name or an invalid value."""
        how = How.of(options, ("batch_size", "cache", "force", "store", "hash_inputs", "per_class"))
        network = {name: value for name, value in how.network().items() if name != "force"}
        reading = {name: getattr(how, name) for name in ("num_workers", "on_error", "max_errors", "progress")}
        return cls(network, reading, how.options)

    @property
    def to_open(self) -> dict[str, Any]:
        """The keywords of :func:`fastfid.sources.open_source`."""
        return {**self.sources, "on_error": self.reading["on_error"]}

    @property
    def to_open_all(self) -> dict[str, Any]:
        """The keywords for a second set, of which no random subset is taken."""
        return {name: value for name, value in self.to_open.items() if name not in ("num", "seed")}


def open_set(source: Any, options: Mapping[str, Any]) -> ImageSource:
    """Open a set of images whose number is known.

    Raises
    ------
    ValueError
        The source is statistics or a store of features, has fewer than two images, or does not say how many it has.
    """
    if load_known(source, options.get("key")) is not None or load_store(source) is not None:
        raise ValueError(f"{source}: holds statistics or features, and images are needed here")
    opened = open_images(source, options)
    try:
        len(opened)
    except TypeError:
        raise ValueError(
            f"{opened.name}: the number of images is not known beforehand; give a folder or file"
        ) from None
    return opened


def open_given(source: Any, options: Mapping[str, Any]) -> ImageSet:
    """Open images, statistics or a store of features."""
    known, store = load_known(source, options.get("key"), spatial=True), load_store(source)
    return ImageSet(known, None if known or store else open_images(source, options), store=store)


def halves(source: ImageSource) -> tuple[ImageSource, ImageSource]:
    """Return two disjoint random halves of a set: the same for every run. ValueError with fewer than four images."""
    n = len(source)
    if n < 4:
        raise ValueError(f"{source.name}: has {n} images, and two halves of two images or more are needed")
    order = np.random.default_rng(SEED).permutation(n)
    first, second = np.sort(order[: n // 2]), np.sort(order[n // 2 :])
    return (
        PickedSource(source, first, f"one half of {source.name}"),
        PickedSource(source, second, f"the other half of {source.name}"),
    )


class Reader:
    """Reads sets with one network for some metrics.

    Parameters
    ----------
    metrics : dict of str to Metric
        Metrics that the network or `given` cannot serve are removed, if `missing` is lenient.
    missing : Missing
    given : iterable of ImageSet
        Sets that may be statistics or stores of features, beside which the network must fit.
    options : Options
    """

    def __init__(self, metrics: dict[str, Metric], missing: Missing, given: Iterable[ImageSet], options: Options):
        files = [one.given for one in given if one.given is not None]
        for one in files:
            missing.check(metrics, partial(check_given, one, is_real=True))
        network = {**options.network, "force": False, "outputs": outputs_needed(metrics.values())}
        self.extractor = extractor_beside_all(files, network)
        missing.check(metrics, partial(check_gives, self.extractor))
        self.metrics = metrics
        self._reading = Reading(
            self.extractor,
            metrics,
            **options.reading,
            cache=False,
            opened_at=time.time(),
            options=options.sources,
        )

    def read(self, images: ImageSet | ImageSource) -> ImageSet:
        """Return a set with what the metrics need of it."""
        one = images if isinstance(images, ImageSet) else ImageSet(None, images)
        if one.store is not None:
            one.take(one.store, self.metrics)
            one.classifier = self.extractor.classifier
        elif one.source is not None:
            self._reading.prepare([one])
            self._reading.fill(one, one.source)
        return one
