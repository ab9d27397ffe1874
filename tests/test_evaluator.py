"""Evaluator: the metrics of growing sets are those of evaluate(); real sides given once; merging, states, pickles."""

import copy
import io
import json
import pickle

import numpy as np
import pytest
import torch
from metric_cases import METRIC_CASES
from stubs import AllOutputs, GridMeans, HostMoments, OnDevice, Tensor
from test_fid import filled, images
from tolerances import ANOTHER_ORDER

from fastfid import FID, Evaluator, Statistics, compute_statistics, evaluate
from fastfid.errors import NumericalError
from fastfid.metrics import METRICS
from fastfid.metrics.fid import FrechetInceptionDistance
from fastfid.metrics.rows import RowMetric

A, B = images(60, 1), images(45, 2, high=200)


def evaluator(metrics=("fid", "kid"), real=A, fake=B, step=7, **options):
    """An evaluator that has seen these images."""
    self = Evaluator(metrics, extractor=options.pop("extractor", None) or AllOutputs(), **options)
    for is_real, side in ((True, real), (False, fake)):
        for start in range(0, len(side), step):
            self.update(side[start : start + step], real=is_real)
    return self


def values(evaluation):
    return {name: result.value for name, result in evaluation.items()}


# Values


def whole(metrics, real=A, fake=B, **options):
    return evaluate(real, fake, metrics=metrics, extractor=AllOutputs(), **options)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_that_of_evaluate(name):
    found, truth = evaluator([name]).compute(), whole([name])
    assert dict(found) == dict(truth)
    assert len(found) > 0


def test_all_metrics_of_one_pass():
    found, truth = evaluator("all").compute(), whole("all")
    assert dict(found) == dict(truth)
    assert (list(found), found.missing) == (list(truth), {})
    assert evaluator(list(METRIC_CASES), step=60).compute().results == truth.results


def test_the_record_is_that_of_evaluate():
    self = evaluator(["fid", "kid:torch-fidelity"], real=images(1003, 1), fake=images(1001, 2), step=500)
    found = self.compute()
    truth = whole(["fid", "kid:torch-fidelity"], images(1003, 1), images(1001, 2)).to_dict()
    record = json.loads(json.dumps(found.to_dict()))
    assert record.keys() == truth.keys()
    assert record["metrics"] == truth["metrics"]
    for key in ("value", "n", "dims", "protocol", "extractor", "precision", "device", "options", "threads", "skipped"):
        assert record[key] == truth[key], key
    assert (record["real"], record["fake"]) == ("real", "fake")
    assert record["seconds"]["total"] >= record["seconds"]["distance"] > 0


def test_the_record_has_the_options_of_the_updates():
    self = Evaluator(extractor=AllOutputs())
    self.update(A / 255, real=True, value_range=(0, 1))
    self.update(B, real=False, alpha=True)
    options = self.compute().to_dict()["options"]
    assert (options["value_range"], options["alpha"], options["exif"]) == ([0, 1], True, False)
    tol = 1e-9
    self = evaluator([FrechetInceptionDistance(tol=tol)])
    assert self.compute().options["tol"] == tol


def test_a_metric_of_the_generated_set_needs_no_real_images():
    found = evaluator(["is"], real=A[:0]).compute()
    assert values(found) == values(whole(["is"]))
    assert (found.real.n, found.fake.n) == (0, 45)


def test_more_images_may_be_added_after_a_value():
    self = evaluator(fake=B[:20])
    assert values(self.compute()) == values(whole(("fid", "kid"), A, B[:20]))
    self.update(B[20:], real=False)
    assert values(self.compute()) == values(whole(("fid", "kid")))
    self.reset(real=False)
    self.update(B[5:], real=False)
    assert values(self.compute()) == values(whole(("fid", "kid"), A, B[5:]))


def test_the_network_runs_once_for_all_metrics():
    class Counting(AllOutputs):
        seen = 0

        def forward(self, batch):
            self.seen += len(batch)
            return super().forward(batch)

    extractor = Counting()
    evaluator(list(METRICS), extractor=extractor)
    assert extractor.seen == 105


# Refusals


def test_too_few_images_name_the_side_and_the_metric():
    with pytest.raises(ValueError, match="fake: a covariance needs at least 2 images, got 0"):
        evaluator(["fid"], fake=B[:0]).compute()
    with pytest.raises(ValueError, match="real: the metric kid needs at least 2 images, got 1"):
        evaluator(["kid"], real=A[:1]).compute()


def test_all_says_what_is_missing_and_may_have_it_later():
    self = evaluator("all", fake=B[:4])
    found = self.compute()
    assert set(found.missing) == {"is", "prdc", "fid-infinity"}
    assert "precision" not in found
    self.update(B[4:], real=False)
    assert values(self.compute()) == values(whole("all"))


def test_what_the_network_does_not_give_is_refused_before_it_is_loaded():
    with pytest.raises(ValueError, match="sfid: needs the output spatial; the extractor gives features at 64 dims"):
        Evaluator(["fid", "sfid"], dims=64)
    with pytest.raises(ValueError, match="sfid: needs the output spatial; the extractor gives features at 12 dims"):
        Evaluator(["fid", "sfid"], extractor=GridMeans())
    found = evaluator("all", extractor=GridMeans()).compute()
    assert set(found.missing) == {"sfid", "is"}
    assert values(found) == {name: value for name, value in values(whole("all")).items() if name not in found.missing}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"metrics": ["fdi"]}, ValueError, "metrics: expected names among fid, sfid"),
        ({"metrics": "fid"}, ValueError, "metrics: expected a list of names"),
        ({"metrics": ["fid", "fid"]}, ValueError, "metrics: fid comes twice"),
        ({"metrics": [3]}, TypeError, "metrics: expected names or objects"),
        ({"dims": 100}, ValueError, "dims: expected one of 64, 192, 768, 2048"),
        ({"device": "gpu"}, ValueError, "device: expected 'auto'"),
        ({"protocol": "unknown"}, ValueError, "protocol: expected one of"),
        ({"extractor": "dino.onnx"}, TypeError, r"extractor: expected a fastfid\.FeatureExtractor"),
        ({"real": 3}, TypeError, "int"),
        ({"real": "no such folder"}, FileNotFoundError, "no such folder"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        Evaluator(**arguments)


def test_a_side_is_true_or_false():
    for real in ("fake", 1, None):
        with pytest.raises(TypeError, match="real: expected True or False, got"):
            Evaluator(extractor=AllOutputs()).update(A, real)


class Blank(AllOutputs):
    """Features that are not finite for black images, as spatial output alone."""

    def forward(self, batch):
        rows = super().forward(batch)
        return rows | {"spatial": np.where(rows["spatial"].any(axis=1, keepdims=True), rows["spatial"], np.nan)}


def test_features_that_are_not_finite_are_named_and_never_counted_in_part():
    self = evaluator(["fid", "sfid"], extractor=Blank())
    with pytest.raises(NumericalError, match="sfid: images from number 45 on, counted from 0:"):
        self.update(np.zeros((1, 9, 11, 3), np.uint8), real=False)
    assert repr(self).endswith("real=60, fake=45)")
    with pytest.raises(ValueError, match=r"fake: an update was interrupted, .* \(46 for fid, 45 for sfid\): reset\(\)"):
        self.compute()
    self.reset(real=False)
    self.update(B, real=False)
    assert values(self.compute()) == values(whole(["fid", "sfid"]))


# A real side that is given once


def test_fixed_statistics(tmp_path):
    known = compute_statistics(A, extractor=GridMeans())
    truth = evaluate(known, B, extractor=GridMeans())
    for real in (known, known.save(tmp_path / "real.npz"), str(tmp_path / "real.npz")):
        self = Evaluator(real=real, extractor=GridMeans())
        self.update(B)
        found = self.compute()
        assert found["fid"] == truth["fid"]
        self.reset()
        self.update(B[:30], real=False)
        assert (self.compute().real.n, self.compute().fake.n) == (60, 30)
    assert repr(self) == "Evaluator(metrics=['fid'], dims=12, protocol='none', real=60 (fixed), fake=30)"
    with pytest.raises(ValueError, match=r"real: the real side is fixed, as .*: pass real=False, or make an Evaluator"):
        self.update(A, real=True)
    with pytest.raises(ValueError, match="kid: needs the images of both sides; array holds statistics only"):
        Evaluator(["fid", "kid"], real=known, extractor=GridMeans())
    self = Evaluator("all", real=known, extractor=AllOutputs())
    self.update(B)
    assert list(self.compute()) == ["fid", "is", "fid-infinity"]
    assert set(self.compute().missing) == set(METRICS) - set(self.compute())


def test_fixed_statistics_that_do_not_state_their_protocol():
    known = Statistics(np.zeros(12), np.eye(12), 60, name="real.npz")
    with pytest.warns(UserWarning, match=r"real\.npz does not say its protocol and is taken for none"):
        self = Evaluator(real=known, extractor=GridMeans())
    self.update(B)
    assert self.compute().assumed_protocol == {"real": "none", "fake": None}


class Counted:
    """Images that say how often they were read."""

    def __init__(self, array):
        self.array, self.readings = array, 0

    def __iter__(self):
        self.readings += 1
        yield from self.array


def test_real_images_given_once_are_read_once():
    real = Counted(A)
    self = Evaluator(["fid", "kid"], real=real, extractor=AllOutputs())
    self.update(B)
    assert real.readings == 0
    for _ in range(2):
        assert values(self.compute()) == values(whole(("fid", "kid")))
        self.reset()
        self.update(B, real=False)
    assert real.readings == 1
    assert repr(self).endswith("real=60 (fixed), fake=45)")
    with pytest.raises(ValueError, match="real: the real side is fixed, as Counted: pass real=False"):
        self.update(A, real=True)
    assert self.compute().real.name == "Counted"


def test_real_images_whose_reading_failed_are_read_again():
    class Once(Counted):
        def __iter__(self):
            self.readings += 1
            yield from self.array[:20]
            if self.readings == 1:
                raise RuntimeError("no disk")
            yield from self.array[20:]

    self = Evaluator(["fid", "kid"], real=Once(A), extractor=AllOutputs())
    self.update(B)
    with pytest.raises(Exception, match="no disk"):
        self.compute()
    assert values(self.compute()) == values(whole(("fid", "kid")))


def test_real_images_given_once_are_no_state():
    self = Evaluator(["fid", "kid"], real=A, extractor=AllOutputs())
    self.update(B)
    truth = values(self.compute())
    state = self.state_dict()
    assert state["real"] == {}
    for again in (Evaluator(["fid", "kid"], real=A, extractor=AllOutputs()), copy.deepcopy(self)):
        again.load_state_dict(state)
        assert values(again.compute()) == truth
    with pytest.raises(ValueError, match="the state has a real side, and the real images of this Evaluator are given"):
        self.load_state_dict(evaluator().state_dict())
    assert values(self.compute()) == truth


def test_merge_of_real_images_given_once(tmp_path):
    np.save(tmp_path / "real.npy", A)
    left, right = (Evaluator(["fid", "kid"], real=tmp_path / "real.npy", extractor=AllOutputs()) for _ in range(2))
    left.update(B[:20])
    right.update(B[20:])
    for incoming in (right, pickle.loads(pickle.dumps(right))):
        merged = copy.deepcopy(left)
        merged.merge(incoming)
        assert values(merged.compute()) == pytest.approx(values(whole(("fid", "kid"))), rel=ANOTHER_ORDER)
    with pytest.raises(ValueError, match=r"the real images of this Evaluator are .*real\.npy, and .* not given once"):
        left.merge(evaluator())


# Merging, states, pickles


def test_merge_of_shards():
    left, right = evaluator(list(METRICS), A[:20], B[:40]), evaluator(list(METRICS), A[20:], B[40:])
    left.merge(right)
    found, truth = left.compute(), whole(list(METRICS))
    assert values(found) == pytest.approx(values(truth), rel=ANOTHER_ORDER)
    assert (found.real.n, found.fake.n) == (60, 45)
    empty = Evaluator(list(METRICS), extractor=AllOutputs())
    empty.merge(left)
    assert values(empty.compute()) == values(found)
    empty.merge(empty)
    assert empty.compute().fake.n == 90
    assert left.compute().fake.n == 45


def test_merge_with_other_metrics():
    kid, both = evaluator(["kid"]), evaluator(["fid", "kid"])
    with pytest.raises(ValueError, match="state: the key 'moments/features' is missing, which fid needs"):
        both.merge(kid)
    kid.merge(both)
    assert kid.compute().fake.n == 90


@pytest.mark.parametrize("other", [None, FID(extractor=AllOutputs()), {}])
def test_what_cannot_be_merged(other):
    self = evaluator(["kid"])
    with pytest.raises(TypeError, match=f"^other: expected an Evaluator, got {type(other).__name__}$"):
        self.merge(other)
    with pytest.raises(TypeError, match=r"^other: expected a FID, got Evaluator$"):
        FID(extractor=AllOutputs()).merge(self)
    assert self.compute().fake.n == 45


def test_a_state_has_one_part_for_each_accumulator():
    self = evaluator(list(METRICS))
    state = self.state_dict()
    assert list(state) == ["provenance", "real", "fake"]
    assert list(state["fake"]) == ["moments/features", "moments/spatial", "rows/features"]
    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    for stored in (state, torch.load(stream)):  # weights_only=True
        again = Evaluator(list(METRICS), extractor=AllOutputs())
        again.load_state_dict(stored)
        assert values(again.compute()) == values(self.compute())
        again.update(B, real=False)
        assert (again.compute().fake.n, self.compute().fake.n) == (90, 45)
    fewer = Evaluator(["kid"], extractor=AllOutputs())
    fewer.load_state_dict(state)
    assert fewer.compute()["kid"] == self.compute()["kid"]
    with pytest.raises(ValueError, match="real: state: the key 'moments/features' is missing, which fid needs"):
        self.load_state_dict(fewer.state_dict())
    assert self.compute().real.n == 60


def test_states_are_exchanged_with_a_fid():
    fid = filled(A, B, 9)
    self = Evaluator(["fid"], extractor=GridMeans())
    self.load_state_dict(fid.state_dict())
    assert self.compute()["fid"] == fid.result()
    again = FID(extractor=GridMeans())
    again.load_state_dict(evaluator(["fid", "kid"], extractor=GridMeans()).state_dict())
    assert again.result() == fid.result()
    with pytest.raises(ValueError, match="real: state: the key 'rows/features' is missing, which kid needs"):
        Evaluator(["fid", "kid"], extractor=GridMeans()).load_state_dict(fid.state_dict())
    fixed = FID(real=compute_statistics(A, extractor=GridMeans()), extractor=GridMeans())
    fixed.update(B)
    self.load_state_dict(fixed.state_dict())
    assert self.compute()["fid"] == fixed.result()
    with pytest.raises(ValueError, match="kid: needs the images of both sides; array holds statistics only"):
        Evaluator(["kid"], extractor=GridMeans()).load_state_dict({**fixed.state_dict(), "fake": {}})
    again = FID(extractor=GridMeans())
    again.load_state_dict(self.state_dict())
    assert again.result() == fixed.result()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"fake": {"rows/features": 3, "moments/features": {}}}, ValueError, r"fake: moments/features: state: the key"),
        ({"fake": {"rows/features": 3}}, ValueError, r"fake: state: the key 'moments/features' is missing"),
        (
            {"provenance": {"protocol": "clean"}},
            ValueError,
            "this Evaluator was made with protocol none, the state",
        ),
        ({"fake": 3}, TypeError, r"state\['fake'\]: expected a mapping, got int"),
    ],
)
def test_what_is_no_state(change, error, message):
    self = evaluator()
    with pytest.raises(error, match=message):
        self.load_state_dict(self.state_dict() | change)
    assert values(self.compute()) == values(whole(("fid", "kid")))


def test_states_of_other_dims_and_parts_that_are_none():
    self = evaluator()
    other = evaluator(extractor=GridMeans(3)).state_dict()
    with pytest.raises(ValueError, match="made with dims 12, the state with 27"):
        self.load_state_dict(other)
    with pytest.raises(ValueError, match="state: holds features of 27 dims, expected 12"):
        self.load_state_dict(other | {"provenance": self.state_dict()["provenance"]})
    part = self.state_dict()["fake"] | {"rows/features": 3}
    with pytest.raises(TypeError, match=r"fake: state\['rows/features'\]: expected a mapping, got int"):
        self.load_state_dict(self.state_dict() | {"fake": part})


def test_pickles_and_copies():
    self = evaluator(list(METRICS))
    for again in (pickle.loads(pickle.dumps(self)), copy.deepcopy(self)):
        assert values(again.compute()) == values(self.compute())
        again.update(B, real=False)
        assert (again.compute().fake.n, self.compute().fake.n) == (90, 45)


def test_an_evaluator_without_images_is_saved_without_its_network(monkeypatch):
    monkeypatch.setattr("fastfid.batches.evaluator.make_extractor", lambda *_: pytest.fail("was loaded"))
    self = Evaluator(["fid", "kid"], dims=64)
    again = pickle.loads(pickle.dumps(self))
    again.load_state_dict(self.state_dict())
    again.merge(self)
    again.reset()
    assert repr(again) == "Evaluator(metrics=['fid', 'kid'], dims=64, protocol='pytorch-fid', real=0, fake=0)"


def test_the_network_is_made_with_what_the_metrics_need(monkeypatch):
    made = []

    def make(dims, protocol, device, weights, precision, outputs):
        made.append((dims, protocol, device, weights, precision, set(outputs)))
        extractor = AllOutputs()
        extractor.dims, extractor.protocol = 2048, "clean"
        extractor.outputs = {"features": 2048, "spatial": 12}
        return extractor

    monkeypatch.setattr("fastfid.batches.evaluator.make_extractor", make)
    self = Evaluator(["sfid", "kid"], protocol="clean", device="cpu", weights="w.pth")
    assert self.extractor is self.extractor
    assert made == [(2048, "clean", "cpu", "w.pth", "float32", {"features", "spatial"})]


def test_a_metric_of_ones_own():
    class Mean(RowMetric):
        name = "mean"

        def result(self, real, fake):
            from fastfid.metrics.base import Result

            a, b = (rows.mean(axis=0) for rows in self.rows_of(real, fake))
            return Result(float(np.abs(a - b).sum()))

    found = evaluator(["fid", Mean()]).compute()
    assert values(found) == values(whole(["fid", Mean()]))


# Tensors on a device, on the host's memory


def test_tensors_on_a_device_and_the_move_to_another(monkeypatch):
    monkeypatch.setattr("fastfid._core.DeviceMoments", HostMoments)
    a, b = images(9, 1, size=(80, 80)), images(7, 2, size=(80, 80))
    plain = Evaluator(["fid", "kid"], dims=64, protocol="none", device="cpu")
    plain.update(a, real=True)
    plain.update(b, real=False)
    self = Evaluator(["fid", "kid"], dims=64, protocol="none")
    self._extractor = OnDevice(64, "none", 4)
    for part in (a[:5], a[5:]):
        self.update(Tensor(part), real=True, stream=1)
    self.update(Tensor(b), real=False, stream=1)
    assert repr(self).endswith("real=9, fake=7)")
    again = pickle.loads(pickle.dumps(self))
    for one in (self, again, self.to("cpu")):
        assert values(one.compute()) == pytest.approx(values(plain.compute()), rel=ANOTHER_ORDER)
    assert self._feeds == {}


def test_an_iterator_of_real_images_is_not_read_twice():
    def images():
        yield from A[:30]
        raise RuntimeError("the loader failed")

    self = Evaluator(["fid"], real=iter(images()), extractor=GridMeans())
    self.update(B)
    with pytest.raises(RuntimeError, match="the loader failed"):
        self.compute()
    with pytest.raises(ValueError, match=r"an interrupted call has taken images out of .*, which gives each one once"):
        self.compute()
