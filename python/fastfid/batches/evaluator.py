"""Metrics of two growing sets of images, for training loops."""

import copy
import os
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal, Self

from fastfid import _core
from fastfid.batches.growing import GrowingSets
from fastfid.batches.trackers import check_step, logger_of, values_of
from fastfid.evaluation.evaluate import options_in_effect
from fastfid.evaluation.image_set import ImageSet
from fastfid.evaluation.opening import check_given, load_known, load_store, statistics_of_store
from fastfid.evaluation.result import EvaluatedSet, Evaluation
from fastfid.extractor import SPATIAL, FeatureExtractor, outputs_of
from fastfid.features.make import make_extractor, outputs_of_inception
from fastfid.metrics import ALL, make_metrics
from fastfid.metrics.base import Metric, check_gives, check_outputs, outputs_needed
from fastfid.metrics.fid import FrechetInceptionDistance
from fastfid.metrics.several import Accumulators, Missing, name_of, results_of
from fastfid.options import Dims, PrecisionName, ProtocolName, SourceOptions
from fastfid.provenance import assumed_protocol
from fastfid.sources import open_source
from fastfid.statistics import Statistics

__all__ = ["Evaluator"]


class Evaluator(GrowingSets[Accumulators]):
    """Several metrics of two growing sets of images: what :class:`FID` is to :func:`compute_fid`, to :func:`evaluate`.

    Parameters
    ----------
    metrics : list of str or Metric, or "all"
        As in :func:`evaluate`. "all": every metric that can be computed; ``missing`` of the result has the others and
        why.
    real : Statistics, path, array, tensor, iterable, Dataset or list of paths, optional
        The real side, given once. It is fixed: :meth:`update` then takes fake images only, and :meth:`reset` keeps it.
        Statistics, or their ``.npz``, are for metrics that need nothing else; copies, pickles and states carry them.
        A store of features is for all metrics whose outputs it has. It is read by each :meth:`compute`, and states
        carry the statistics of its features.
        Images are read by the first :meth:`compute`, with the default options of :meth:`update`; states do not carry
        them. Default: real images come by :meth:`update`.
    dims, protocol, device, precision, weights, extractor, num_workers
        As in :class:`FID`.

    Raises
    ------
    ValueError
        A metric is unknown, or needs what the network or the statistics of `real` do not have. Also every ValueError
        that :class:`FID` raises.
    TypeError
        An element of `metrics` is neither a name nor a metric; `real` is no source; `extractor` is none.
    OSError
        `real` cannot be opened.

    Notes
    -----
    Each image goes through the network once, whatever the number of metrics. "fid" and "sfid" take memory that does not
    grow with the number of images. All other metrics together keep the features of all images in the memory of the
    host: 4 n dims bytes a side, 8 KiB per image at 2048 dims, 410 MB for 50,000 images. A side takes at least twice as
    much while metrics are computed, and up to three and a half times as much while it is merged or pickled. A state has
    this size too. Images on a GPU give features that come to the host for these metrics, for which each full batch
    waits.

    Examples
    --------
    >>> import numpy as np
    >>> evaluator = Evaluator(["fid", "kid"], dims=64)
    >>> rng = np.random.default_rng(0)
    >>> evaluator.update(rng.integers(0, 256, (80, 32, 32, 3), dtype=np.uint8), real=True)
    >>> evaluator.update(rng.integers(0, 128, (80, 32, 32, 3), dtype=np.uint8), real=False)
    >>> found = evaluator.compute()
    >>> found["fid"].value > 0, found["kid"].standard_error > 0
    (True, True)

    With a real side that is given once, a folder of four pictures:

    >>> evaluator = Evaluator(["kid"], real="real", dims=64)
    >>> evaluator.update("fake")
    >>> evaluator.compute()
    Evaluation(kid=..., real='real', fake='fake')
    >>> evaluator.reset()
    >>> evaluator
    Evaluator(metrics=['kid'], dims=64, protocol='pytorch-fid', real=4 (fixed), fake=0)
    """

    _one = "an Evaluator"

    def __init__(
        self,
        metrics: Literal["all"] | Iterable[str | Metric] = ("fid",),
        *,
        real: Any = None,
        dims: Dims | None = None,
        protocol: ProtocolName | None = None,
        device: str | int = "auto",
        precision: PrecisionName = "float32",
        weights: str | os.PathLike[str] | None = None,
        extractor: FeatureExtractor | None = None,
        num_workers: int | None = None,
    ):
        self._metrics = make_metrics(metrics)
        self._missing = Missing(lenient=metrics == ALL)
        self._options: SourceOptions = {}  # of the updates
        self._store = load_store(real)  # of the real side; its statistics stand for it in states
        spatial = any(SPATIAL in metric.needs for metric in self._metrics.values())
        fixed = statistics_of_store(self._store) if self._store is not None else load_known(real, spatial=spatial)
        self._images = real if fixed is None else None  # of the real side, given once
        self._images_name = open_source(real).name if self._images is not None else None
        self._are_images_read = False
        self._is_reading = False
        super().__init__(
            fixed,
            dims=dims,
            protocol=protocol,
            device=device,
            precision=precision,
            weights=weights,
            extractor=extractor,
            num_workers=num_workers,
        )
        if extractor is not None:
            self._missing.check(self._metrics, partial(check_gives, extractor))
        else:  # the classifier is looked for where the network is loaded
            outputs = outputs_of_inception(self.dims, self.protocol)
            self._missing.check(self._metrics, partial(check_outputs, outputs, self.dims))

    def __repr__(self) -> str:
        """Return one line: the metrics, what the network is, and how many images were seen."""
        network = f"dims={self.dims}, protocol={self.protocol!r}"
        return f"Evaluator(metrics={list(self._metrics)}, {network}, {self._counts()})"

    def _make_extractor(self) -> FeatureExtractor:
        needed = outputs_needed(self._metrics.values())
        extractor = make_extractor(self.dims, self.protocol, self._device, self._weights, self.precision, needed)
        self._missing.check(self._metrics, partial(check_gives, extractor))
        return extractor

    def _empty(self) -> Accumulators:
        return Accumulators(self._metrics)

    def _restored(self, state: Mapping[str, Any]) -> Accumulators:
        if "d" in state:  # of a FID
            state = {name_of(FrechetInceptionDistance().accumulates): state}
        return Accumulators.restored(self._metrics, state)

    def _check_takes(self, fixed: Statistics) -> None:
        self._missing.check(self._metrics, partial(check_given, self._store or fixed, is_real=True))

    # A real side of images that was given once.

    @property
    def _fixed_name(self) -> str | None:
        return self._images_name or super()._fixed_name

    def _read_images(self) -> None:
        """Read the real images that were given once, if they have not been read."""
        if self._images is None or self._are_images_read:
            return
        if self._is_reading and hasattr(self._images, "__next__"):  # an iterator
            raise ValueError(
                f"real: an interrupted call has taken images out of {self._images_name}, which gives each one once:"
                " make an Evaluator with all real images"
            )
        self._is_reading = True
        self._seen_of(True).reset()  # what an interrupted call has read
        self._feeds.pop(True, None)
        super()._add(self._images, True, None, {})
        self._are_images_read = True

    def _state_of_real(self) -> dict[str, Any]:
        return super()._state_of_real() if self._images is None else {}

    def _add(self, images: Any, real: bool, stream: Any, options: SourceOptions) -> None:
        super()._add(images, real, stream, options)
        self._options = {**self._options, **options}

    def compute(self) -> Evaluation:
        """Return the metrics of the images so far. More images may be added later.

        Real images that were given once are read by the first call.

        Returns
        -------
        Evaluation
            The object that :func:`evaluate` returns. Its ``seconds`` are those of this call, and its ``options`` the
            latest that were given to :meth:`update`.

        Raises
        ------
        ValueError
            A side has too few images for a metric, which is named; an :meth:`update` was interrupted half-way.
        fastfid.NumericalError
            Features are too large for a metric.

        Examples
        --------
        >>> import numpy as np
        >>> evaluator = Evaluator(["prdc", "vendi"], dims=64)
        >>> rng = np.random.default_rng(0)
        >>> for real in (True, False):
        ...     evaluator.update(rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8), real=real)
        >>> list(evaluator.compute())
        ['precision', 'recall', 'density', 'coverage', 'vendi']
        """
        started, began = time.perf_counter(), time.time()
        self._read_images()
        extracted = time.perf_counter()
        self._warn_of_images_without_levels()
        asked, missing = dict(self._metrics), copy.copy(self._missing)
        real, fake = self._set_of(True), self._set_of(False)
        results = results_of(asked, missing, real, fake)
        first = next(iter(asked.values()))
        finished = time.perf_counter()
        seconds = {"load": 0.0, "features": extracted - started, "distance": finished - extracted}
        return Evaluation(
            results,
            EvaluatedSet.of(real.sample(first)),
            EvaluatedSet.of(fake.sample(first)),
            self.dims,
            assumed_protocol={"real": self._assumed_protocol(), "fake": None},
            skipped={"real": [], "fake": []},
            cached={"real": False, "fake": False},
            device=self._extractor.device if self._extractor is not None else None,
            seconds={**seconds, "total": finished - started},
            date=datetime.fromtimestamp(began, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            host=os.uname().nodename,
            threads=_core.num_threads(),
            options=options_in_effect(self._options, asked),
            missing=dict(missing),
        )

    def log_to(self, writer: Any, step: int) -> Evaluation:
        """Compute the metrics, and log each value and its standard error to a tracker of experiments.

        The names are ``fid`` and ``fid_standard_error``, for any metric, and ``kid_torch-fidelity`` for a convention; a
        standard error that is unknown is not logged. The numbers of images are ``images_real`` and ``images_fake``.

        Parameters
        ----------
        writer : SummaryWriter, run of Weights & Biases, module ``mlflow``, or any object with one of their methods
            ``writer.add_scalar(name, value, step)``, as TensorBoard's SummaryWriter;
            ``writer.log_metric(name, value, step=step)``, as the module ``mlflow``; or
            ``writer.log({name: value}, step=step)``, as a run of Weights & Biases. The first one there is.
        step : int
            Number of the training step.

        Returns
        -------
        Evaluation
            What :meth:`compute` returns. :meth:`reset` is left to the caller.

        Raises
        ------
        TypeError
            `writer` has none of the methods, or `step` is not an integer. The exceptions of :meth:`compute` are raised
            too.

        Examples
        --------
        >>> import numpy as np
        >>> class Writer:
        ...     def add_scalar(self, name, value, step):
        ...         print(name, step)
        >>> evaluator = Evaluator(["fid"], real="real", dims=64)  # a folder of four pictures
        >>> evaluator.update("fake")
        >>> found = evaluator.log_to(Writer(), 100)
        fid 100
        images_real 100
        images_fake 100
        """
        log = logger_of(writer)
        number = check_step(step)
        found = self.compute()
        log(values_of(found), number)
        return found

    def _set_of(self, real: bool) -> ImageSet:
        if real and self._store is not None:
            images = ImageSet(None, store=self._store, classifier=lambda: self.extractor.classifier())
            images.take(self._store, self._metrics)
            return images
        if real and self._fixed is not None:
            return ImageSet(self._fixed)
        name = (real and self._images_name) or ("real" if real else "fake")
        seen = self._accumulated(real)
        seen.check_whole(name)
        if not seen:  # the metrics say what is missing
            seen.make(outputs_of(self.extractor))
        meta = {**self._provenance(), "source": name}
        return ImageSet(None, seen=seen, name=name, meta=meta, classifier=lambda: self.extractor.classifier())

    def _assumed_protocol(self) -> str | None:
        """Return the protocol that fixed statistics are taken for, if they do not state one."""
        if self._fixed is None or self._fixed.meta.get("protocol") is not None:
            return None
        sign = assumed_protocol(self._fixed.meta, self._fixed.name)
        return sign.protocol if sign else self.protocol

    def _shared_state(self) -> dict[str, Any]:
        if self._missing.lenient:  # then the network says which metrics there are, also where it has seen no image
            self.extractor  # noqa: B018
        return super()._shared_state()

    def _must_be_same(self) -> dict[str, Any]:
        return {**super()._must_be_same(), "metrics": list(self._metrics), "real images": self._images_name}

    def merge(self, other: Self) -> None:
        """Add what another Evaluator of the same metrics (another process's shard, say) has seen.

        A fixed real side is not added: the other must have the same. Images that were given once are the same if
        their source has the same name. Where memory runs out in the middle, one side may have been added and the other
        not.

        Raises
        ------
        ValueError
            The other saw its images otherwise, has not what a metric needs, or has another real side that is fixed, or
            none.
        TypeError
            `other` is no Evaluator.
        """
        self._expect_same_kind(other)
        ours, theirs = self._images_name, other._images_name
        if ours != theirs:
            raise ValueError(
                f"the real images of {self._this} are {ours or 'not given once'}, and those of the other"
                f" {theirs or 'not given once'}: make both with the same real="
            )
        super().merge(other)

    def _expect_same_real(self, other: Statistics | None, n: int, name: str) -> None:
        if self._images is not None and (other is not None or n):
            raise ValueError(
                f"{name} has a real side, and the real images of {self._this} are given once, as {self._images_name}:"
                f" make {self._one} without real="
            )
        super()._expect_same_real(other, n, name)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the accumulated state by one that :meth:`state_dict` returned.

        A state of more metrics is loaded as far as the metrics need it, and so is one of a :class:`FID`. Real images
        that were given once stay, and statistics of the real side are taken from the state, if there are none here.

        Parameters
        ----------
        state : mapping
            As :meth:`state_dict` returns it. Arrays may be tensors, on any device, and the other way round.

        Raises
        ------
        TypeError
            `state` or a part of it is not a mapping, or an entry has a wrong type.
        ValueError
            It is no such state, was made with other dims, another protocol or another network, or has not what a metric
            needs; the real side is given here, and the state has another one.
        """
        images = self._seen_of(True)
        super().load_state_dict(state)
        if self._images is not None:
            self._seen[True] = images
