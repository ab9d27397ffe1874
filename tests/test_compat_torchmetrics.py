"""fastfid.compat.torchmetrics. tests/peers/test_torchmetrics.py compares it with torchmetrics' own metric."""

import copy
import importlib
import os
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from tolerances import ANOTHER_ORDER, FEATURES_EXACT, FLOAT32_VALUE

from fastfid.errors import FastfidWarning, NumericalError, SuspiciousInputWarning
from fastfid.metrics.fid import frechet_distance
from fastfid.statistics import Statistics

STATES = [f"{side}_features_{name}" for side in ("real", "fake") for name in ("sum", "cov_sum", "num_samples")]


@pytest.fixture
def FrechetInceptionDistance(torchvision_importable):  # noqa: N802
    return importlib.import_module("fastfid.compat.torchmetrics").FrechetInceptionDistance


class Means(torch.nn.Module):
    """A network with known features: means over the quarters of an image."""

    num_features = 12

    def forward(self, x):
        return torch.nn.functional.adaptive_avg_pool2d(x.float(), 2).flatten(1)


class Identity(torch.nn.Module):
    def forward(self, x):
        return x


def images(n, seed, low=0, high=256):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (n, 3, 8, 8), dtype=torch.uint8, generator=generator)


def truth(real, fake):
    """The distance of the two sets of features by a two-pass covariance."""
    sides = [Means()(x).double().numpy() for x in (real, fake)]
    return frechet_distance(*((x.mean(axis=0), np.cov(x, rowvar=False)) for x in sides))


def test_the_class_is_torchmetrics_own(FrechetInceptionDistance):
    bases = [f"{base.__module__}.{base.__qualname__}" for base in FrechetInceptionDistance.__mro__]
    assert "torchmetrics.metric.Metric" in bases
    assert FrechetInceptionDistance.higher_is_better is False
    assert FrechetInceptionDistance.is_differentiable is False
    assert FrechetInceptionDistance.full_state_update is False
    assert FrechetInceptionDistance.feature_network == "inception"


def test_the_value_is_that_of_all_batches(FrechetInceptionDistance):
    real, fake = images(40, 0), images(33, 1, low=40)
    fid = FrechetInceptionDistance(feature=Means())
    for batch in real.split(7):
        fid.update(batch, real=True)
    for batch in fake.split(20):
        fid.update(batch, False)
    value = fid.compute()
    assert value.shape == ()
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(truth(real, fake), rel=FLOAT32_VALUE)
    assert fid.compute() is value or torch.equal(fid.compute(), value)


def test_the_states_are_raw_sums(FrechetInceptionDistance):
    fid = FrechetInceptionDistance(feature=Means())
    assert list(fid.metric_state) == STATES
    real = images(9, 0)
    fid.update(real[:4], real=True)
    fid.update(real[4:], real=True)
    features = Means()(real).double()
    torch.testing.assert_close(fid.real_features_sum, features.sum(0), rtol=ANOTHER_ORDER, atol=0)
    torch.testing.assert_close(fid.real_features_cov_sum, features.t() @ features, rtol=ANOTHER_ORDER, atol=0)
    assert fid.real_features_num_samples == 9
    assert fid.fake_features_num_samples == 0
    assert {state.dtype for state in fid.metric_state.values()} == {torch.float64, torch.int64}


def test_fewer_samples_than_dimensions_are_exact(FrechetInceptionDistance):
    # The peer's eigenvalues of a singular product leave an error of the root of the rounding.
    real, fake = images(7, 0), images(5, 1)
    sides = [Means()(x).double().numpy() for x in (real, fake)]
    exact = frechet_distance(*(Statistics(x.mean(axis=0), np.cov(x, rowvar=False), len(x), rows=x) for x in sides))
    fid = FrechetInceptionDistance(feature=Means()).set_dtype(torch.float64)
    fid.update(real.double(), real=True)
    fid.update(fake.double(), real=False)
    fid.orig_dtype = torch.float64
    assert float(fid.compute()) == pytest.approx(exact, rel=ANOTHER_ORDER)


@pytest.mark.parametrize(("n", "repeats"), [(1, 6), (3, 10)])
def test_images_that_repeat_are_no_error(FrechetInceptionDistance, n, repeats):
    # Rounding makes the covariance of a collapsed generator slightly indefinite, for few images and for many.
    real, fake = images(40, 0), images(n, 1).repeat(repeats, 1, 1, 1)
    fid = FrechetInceptionDistance(feature=Means())
    fid.update(real, real=True)
    fid.update(fake, real=False)
    x, y = (Means()(side).double().numpy() for side in (real, fake))
    gaussian = (y.mean(axis=0), np.cov(y, rowvar=False))
    if n == 1:
        expected = ((x.mean(axis=0) - gaussian[0]) ** 2).sum() + np.trace(np.cov(x, rowvar=False))
    else:
        expected = frechet_distance(Statistics(x.mean(axis=0), np.cov(x, rowvar=False)), _thin(y))
    assert float(fid.compute()) == pytest.approx(expected, rel=FLOAT32_VALUE)


def _thin(rows):
    """The same Gaussian from its few distinct rows: singular covariances are exact in rows."""
    distinct, counts = np.unique(rows, axis=0, return_counts=True)
    assert (counts == counts[0]).all()
    n, k = len(rows), len(distinct)
    centred = distinct - distinct.mean(axis=0)
    scaled = distinct.mean(axis=0) + centred * np.sqrt((n / k) * (k - 1) / (n - 1))
    return Statistics(rows.mean(axis=0), np.cov(scaled, rowvar=False), k, rows=scaled)


def test_sums_that_are_no_covariance_are_refused(FrechetInceptionDistance):
    fid = FrechetInceptionDistance(feature=Means())
    fid.update(images(40, 0), real=True)
    fid.update(images(40, 1), real=False)
    fid.fake_features_cov_sum -= 1e3 * torch.eye(12, dtype=torch.float64) * 40
    with pytest.raises(NumericalError):
        fid.compute()


def test_reset_keeps_the_real_side_if_asked(FrechetInceptionDistance):
    for keep in (False, True):
        fid = FrechetInceptionDistance(feature=Means(), reset_real_features=not keep)
        fid.update(images(5, 0), real=True)
        fid.update(images(6, 1), real=False)
        fid.reset()
        assert fid.real_features_num_samples == (5 if keep else 0)
        assert bool(fid.real_features_sum.any()) == keep
        assert fid.fake_features_num_samples == 0
        assert not fid.fake_features_cov_sum.any()


def test_the_cache_ends_with_an_update_or_a_merge(FrechetInceptionDistance):
    real, fake, more = images(20, 0), images(20, 1), images(20, 2)
    fid, other = (FrechetInceptionDistance(feature=Means()) for _ in range(2))
    fid.update(real, real=True)
    fid.update(fake, real=False)
    first = float(fid.compute())
    fid.update(more, real=False)
    second = float(fid.compute())
    assert second == pytest.approx(truth(real, torch.cat([fake, more])), rel=FLOAT32_VALUE)
    assert second != first
    other.update(images(9, 3), real=True)
    fid.merge_state(other)
    assert float(fid.compute()) == pytest.approx(
        truth(torch.cat([real, images(9, 3)]), torch.cat([fake, more])), rel=FLOAT32_VALUE
    )


def test_states_merge_from_a_metric_or_a_dict(FrechetInceptionDistance):
    real, fake = images(30, 0), images(30, 1)
    parts = []
    for part in (0, 1):
        fid = FrechetInceptionDistance(feature=Means())
        fid.update(real[part::2], real=True)
        fid.update(fake[part::2], real=False)
        parts.append(fid)
    as_dict = copy.deepcopy(parts[0])
    as_dict.merge_state(parts[1].metric_state)
    parts[0].merge_state(parts[1])
    for merged in (as_dict, parts[0]):
        assert float(merged.compute()) == pytest.approx(truth(real, fake), rel=FLOAT32_VALUE)
    with pytest.raises(ValueError, match="Expected incoming state to be a dict or an instance of Metric"):
        parts[0].merge_state(3)
    with pytest.raises(ValueError, match="Expected state variable"):
        parts[0].merge_state({"real_features_sum": torch.zeros(12)})


def test_pickles_and_copies_go_on_separately(FrechetInceptionDistance):
    real, fake = images(20, 0), images(20, 1)
    fid = FrechetInceptionDistance(feature=Means())
    fid.update(real, real=True)
    for again in (pickle.loads(pickle.dumps(fid)), copy.deepcopy(fid), fid.clone()):
        again.update(fake, real=False)
        assert float(again.compute()) == pytest.approx(truth(real, fake), rel=FLOAT32_VALUE)
    assert fid.fake_features_num_samples == 0


def test_a_state_dict_is_loaded_as_a_copy(FrechetInceptionDistance):
    real, fake = images(20, 0), images(20, 1)
    fid = FrechetInceptionDistance(feature=Means())
    assert not fid.state_dict()
    fid.update(real, real=True)
    fid.persistent(True)
    saved = fid.state_dict()
    assert sorted(saved) == sorted(STATES)
    before = {name: state.clone() for name, state in saved.items()}
    again = FrechetInceptionDistance(feature=Means())
    again.load_state_dict(saved)
    again.update(real, real=True)
    again.update(fake, real=False)
    assert again.real_features_num_samples == 40
    for name, state in saved.items():
        assert torch.equal(state, before[name]), name


def test_a_batch_alone_has_no_distance_and_nothing_is_lost(FrechetInceptionDistance):
    for keep in (False, True):
        fid = FrechetInceptionDistance(feature=Means(), reset_real_features=not keep)
        fid.update(images(5, 0), real=True)
        fid.update(images(6, 1), real=False)
        states = {name: state.clone() for name, state in fid.metric_state.items()}
        with pytest.raises(RuntimeError, match="More than one sample is required"):
            fid(images(4, 2), real=True)
        for name, state in fid.metric_state.items():
            assert torch.equal(state, states[name]), name
        assert fid.reset_real_features is not keep


def test_sums_stay_float64_whatever_the_dtype(FrechetInceptionDistance):
    fid = FrechetInceptionDistance(feature=Means())
    for cast in (fid.half, fid.float, fid.double):
        cast()
    for dtype in (torch.float16, "torch.bfloat16", torch.float32):
        fid.set_dtype(dtype)
    fid.update(images(20, 0), real=True)
    assert fid.real_features_cov_sum.dtype == torch.float64
    assert fid.to("cpu").device == torch.device("cpu")
    for wrong in (torch.int64, "no dtype"):
        with pytest.raises((ValueError, AttributeError)):
            fid.set_dtype(wrong)


def test_a_network_without_num_features_is_tried_on_an_image(FrechetInceptionDistance):
    seen = []

    class Flat(torch.nn.Module):
        def forward(self, x):
            seen.append((tuple(x.shape), x.dtype))
            return x.float().flatten(1)[:, :5]

    for normalize, dtype in ((False, torch.uint8), (True, torch.float32)):
        fid = FrechetInceptionDistance(feature=Flat(), normalize=normalize, input_img_size=(3, 4, 6))
        assert fid.real_features_sum.shape == (5,)
        assert seen.pop() == ((1, 3, 4, 6), dtype)


def test_num_features_may_be_a_tensor_and_one_row_may_be_flat(FrechetInceptionDistance):
    network = Identity()
    network.num_features = torch.tensor(4)
    fid = FrechetInceptionDistance(feature=network)
    fid.update(torch.arange(4.0), real=True)
    torch.testing.assert_close(fid.real_features_sum, torch.arange(4.0).double(), rtol=0, atol=0)
    network.num_features = "4"
    with pytest.raises(TypeError, match="to be of type int or Tensor"):
        FrechetInceptionDistance(feature=network)


def test_normalize_hands_a_callers_network_its_images_unchanged(FrechetInceptionDistance):
    network = Identity()
    network.num_features = 2
    fid = FrechetInceptionDistance(feature=network, normalize=True)
    fid.update(torch.tensor([[0.25, 7.0]]), real=True)
    assert fid.real_features_sum.tolist() == [0.25, 7.0]


def test_gradients_are_not_kept(FrechetInceptionDistance):
    network = torch.nn.Linear(3, 2)
    network.num_features = 2
    fid = FrechetInceptionDistance(feature=network)
    fid.update(torch.rand(4, 3, requires_grad=True), real=True)
    assert not fid.real_features_sum.requires_grad


def test_features_that_are_not_finite_add_nothing(FrechetInceptionDistance):
    network = Identity()
    network.num_features = 3
    fid = FrechetInceptionDistance(feature=network)
    rows = torch.rand(5, 3)
    rows[2, 1] = float("nan")
    with pytest.raises(NumericalError, match="row 2"):
        fid.update(rows, real=True)
    assert not fid.real_features_cov_sum.any()
    assert fid.real_features_num_samples == 0


def test_features_of_another_width_are_refused(FrechetInceptionDistance):
    network = Identity()
    network.num_features = 3
    fid = FrechetInceptionDistance(feature=network)
    with pytest.raises(ValueError, match=r"\(n, 3\)"):
        fid.update(torch.rand(5, 4), real=True)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"normalize": 1}, ValueError, "Argument `normalize` expected to be a bool"),
        ({"reset_real_features": 1}, ValueError, "Argument `reset_real_features` expected to be a bool"),
        (
            {"feature": 2},
            ValueError,
            r"Integer input to argument `feature` must be one of \(64, 192, 768, 2048\), but got 2\.",
        ),
        ({"feature": [1, 2]}, TypeError, "Got unknown input to argument `feature`"),
    ],
)
def test_bad_arguments(FrechetInceptionDistance, arguments, error, text):
    with pytest.raises(error, match=text):
        FrechetInceptionDistance(**arguments)


def test_construction_is_cheap_and_repeated_arguments_are_positional(FrechetInceptionDistance, monkeypatch):
    monkeypatch.setenv("FASTFID_WEIGHTS", "no such file")
    fid = FrechetInceptionDistance(64, False, True, (3, 299, 299), None, False)
    assert (fid.reset_real_features, fid.normalize, fid.inception.protocol) == (False, True, "tensorflow")
    assert FrechetInceptionDistance(64).inception.protocol == "torchmetrics"


@pytest.mark.parametrize(
    ("normalize", "imgs", "text"),
    [
        (False, torch.rand(2, 3, 8, 8), "Expecting image as torch.Tensor with dtype=torch.uint8"),
        (False, torch.zeros(3, 8, 8, dtype=torch.uint8), r"expected shape \(n, 3, h, w\)"),
        (False, torch.zeros(2, 1, 8, 8, dtype=torch.uint8), r"expected shape \(n, 3, h, w\)"),
        # torchmetrics lets these wrap around.
        (True, torch.full((1, 3, 8, 8), 1.01), r"values in \[0, 1\]"),
        (True, torch.full((1, 3, 8, 8), -0.01), r"values in \[0, 1\]"),
        (True, torch.full((1, 3, 8, 8), float("nan")), r"values in \[0, 1\]"),
    ],
)
def test_bad_images(FrechetInceptionDistance, normalize, imgs, text):
    fid = FrechetInceptionDistance(feature=64, normalize=normalize)
    with pytest.raises(ValueError, match=text):
        fid.update(imgs, real=True)
    assert fid.real_features_num_samples == 0


def test_what_is_no_tensor_is_refused(FrechetInceptionDistance):
    fid = FrechetInceptionDistance(feature=64, normalize=True)
    with pytest.raises(TypeError, match=r"imgs: expected a torch\.Tensor, got ndarray"):
        fid.update(np.zeros((2, 3, 8, 8)), real=True)


def test_too_few_samples(FrechetInceptionDistance):
    fid = FrechetInceptionDistance(feature=Means())
    fid.update(images(5, 0), real=True)
    fid.update(images(1, 1), real=False)
    with pytest.raises(
        RuntimeError, match="More than one sample is required for both the real and fake distributed to compute FID"
    ):
        fid.compute()


def test_the_built_in_network(FrechetInceptionDistance, weights):
    fid = FrechetInceptionDistance(feature=64)
    fid.train()
    assert not fid.inception.training
    batch = images(3, 0)
    before = batch.clone()
    features = fid.inception(batch)
    assert features.shape == (3, 64)
    assert torch.equal(batch, before)
    assert fid.inception(batch[:0]).shape == (0, 64)
    again = pickle.loads(pickle.dumps(fid))
    assert torch.equal(again.inception(batch), features)
    fid.set_dtype(torch.float64)
    precise = fid.inception(batch)
    assert precise.dtype == torch.float64
    torch.testing.assert_close(precise, features.double(), rtol=0, atol=FEATURES_EXACT)
    assert torch.equal(fid.inception(batch), precise)  # by the network that is there already
    assert not fid.state_dict()


def test_images_without_levels_are_said(FrechetInceptionDistance, weights):
    fid = FrechetInceptionDistance(feature=64)
    for real in (True, False):
        fid.update(images(3, int(real), high=2), real=real)
    with pytest.warns(SuspiciousInputWarning, match="imgs: no value of its 6 images exceeds 1: were images in 0..1"):
        fid.compute()


def test_plot(FrechetInceptionDistance):
    fid = FrechetInceptionDistance(feature=Means())
    fid.update(images(20, 0), real=True)
    fid.update(images(20, 1), real=False)
    import matplotlib

    matplotlib.use("Agg")
    figure, axes = fid.plot([fid.compute(), fid.compute()])
    assert axes in figure.axes


def test_a_collection_takes_the_metric(torchvision_importable):
    from torchmetrics import MetricCollection

    from fastfid.compat.torchmetrics import FrechetInceptionDistance

    real, fake = images(20, 0), images(20, 1)
    collection = MetricCollection({"fid": FrechetInceptionDistance(feature=Means())})
    collection.update(real, real=True)
    collection.update(fake, real=False)
    assert float(collection.compute()["fid"]) == pytest.approx(truth(real, fake), rel=FLOAT32_VALUE)


# A fixed real side


def known(images, **meta):
    """Statistics of the features of images by Means, as a file of ours would hold them."""
    x = Means()(images).double().numpy()
    return Statistics(x.mean(axis=0), np.cov(x, rowvar=False), len(x), meta, name="real.npz")


def test_fixed_real_statistics(FrechetInceptionDistance, tmp_path):
    real, fake = images(40, 0), images(33, 1, low=40)
    path = known(real).save(tmp_path / "real.npz")
    for given in (known(real), path, str(path)):
        fid = FrechetInceptionDistance(feature=Means(), real_statistics=given)
        for _ in range(2):
            for batch in fake.split(20):
                fid.update(batch, real=False)
            assert float(fid.compute()) == pytest.approx(truth(real, fake), rel=FLOAT32_VALUE)
            fid.reset()
        with pytest.raises(ValueError, match=r"real: the real side is fixed, as .*real\.npz \(real_statistics\)"):
            fid.update(real, real=True)
        with pytest.raises(RuntimeError, match="More than one sample"):
            fid.compute()
        # A batch alone has a distance.
        assert float(fid(fake, real=False)) == pytest.approx(truth(real, fake), rel=FLOAT32_VALUE)
    for again in (pickle.loads(pickle.dumps(fid)), copy.deepcopy(fid), fid.clone()):
        assert torch.equal(again.compute(), fid.compute())
    assert not fid.state_dict()


def test_few_and_repeating_images_against_fixed_statistics(FrechetInceptionDistance):
    real = images(40, 0)
    for fake in (images(5, 1), images(3, 1).repeat(10, 1, 1, 1)):
        values = []
        for metric in (
            FrechetInceptionDistance(feature=Means(), real_statistics=known(real)),
            FrechetInceptionDistance(feature=Means()),
        ):
            if metric._fixed is None:
                metric.update(real, real=True)
            metric.update(fake, real=False)
            values.append(float(metric.compute()))
        assert values[0] == pytest.approx(values[1], rel=FLOAT32_VALUE)


def test_metrics_merge_with_the_same_fixed_statistics(FrechetInceptionDistance):
    real, fake = images(40, 0), images(33, 1, low=40)
    fid, other = (FrechetInceptionDistance(feature=Means(), real_statistics=known(real)) for _ in range(2))
    fid.update(fake[:20], real=False)
    other.update(fake[20:], real=False)
    fid.merge_state(other)
    assert float(fid.compute()) == pytest.approx(truth(real, fake), rel=FLOAT32_VALUE)
    free = FrechetInceptionDistance(feature=Means())
    free.update(real, real=True)
    stranger = FrechetInceptionDistance(feature=Means(), real_statistics=known(fake))
    for incoming in (free, stranger):
        incoming.update(fake, real=False)
        with pytest.raises(ValueError, match="merge_state: the two metrics have different `real_statistics`"):
            fid.merge_state(incoming)
    with pytest.raises(ValueError, match="merge_state: the state holds real images"):
        fid.merge_state(free.metric_state)
    free.persistent(True)
    fid = FrechetInceptionDistance(feature=Means(), real_statistics=known(real))
    fid.update(fake, real=False)
    fid.load_state_dict(free.state_dict(), strict=False)
    with pytest.raises(RuntimeError, match="The state holds real images, but the real side is fixed"):
        fid.compute()


@pytest.mark.parametrize(
    ("options", "d", "meta", "message"),
    [
        (
            {},
            2048,
            {"protocol": "pytorch-fid"},
            "real.npz was made with protocol pytorch-fid, and the other side's images are read with torchmetrics: "
            "make it again with: fastfid stats IMAGES -o real.npz --overwrite --protocol torchmetrics",
        ),
        ({}, 64, {}, "pass feature=64, or make it again with: fastfid stats IMAGES -o real.npz"),
        ({"feature": 64}, 64, {"protocol": "tensorflow"}, "pass antialias=False, or make it again with"),
        ({"feature": 64, "antialias": False}, 64, {"protocol": "torchmetrics"}, "pass antialias=True, or make it"),
        ({"feature": 64}, 64, {"precision": "tf32"}, "read with float32: make it again with: fastfid stats"),
    ],
)
def test_fixed_statistics_that_do_not_match(FrechetInceptionDistance, options, d, meta, message):
    given = Statistics(np.zeros(d), np.eye(d), 100, meta, name="real.npz")
    with pytest.raises(ValueError, match=re.escape(message)):
        FrechetInceptionDistance(**options, real_statistics=given)


def test_fixed_statistics_that_are_doubtful(FrechetInceptionDistance, weights):
    def gaussian(d, **meta):
        return Statistics(np.zeros(d), np.eye(d), 100, meta, name="real.npz")

    with pytest.raises(ValueError, match=r"real\.npz has 5 dims, the network of feature= gives 12"):
        FrechetInceptionDistance(feature=Means(), real_statistics=gaussian(5))
    with pytest.warns(FastfidWarning, match=r"real\.npz was made with inception; whether feature= is that network"):
        FrechetInceptionDistance(feature=Means(), real_statistics=gaussian(12, extractor="inception"))
    with pytest.warns(FastfidWarning, match="taken for torchmetrics; if .* use statistics made with --protocol torchm"):
        FrechetInceptionDistance(feature=64, real_statistics=gaussian(64))
    with pytest.raises(TypeError, match=r"real_statistics: expected Statistics or the path of an \.npz"):
        FrechetInceptionDistance(feature=64, real_statistics=3)
    fid = FrechetInceptionDistance(feature=64, real_statistics=gaussian(64, protocol="torchmetrics", extractor="x"))
    with pytest.raises(ValueError, match=r"real\.npz was made with extractor x, "):
        fid.update(images(3, 0), real=False)
    assert fid.fake_features_num_samples == 0


def test_processes_add_up(tmp_path, torchvision_importable):
    """Two processes, of which one has seen no fake image: both compute the whole, and go on with their own sums."""
    script = f"""
import os, sys
import numpy as np, torch, torch.distributed as dist
sys.path[:0] = [{os.path.dirname(__file__)!r}, {os.path.dirname(os.path.dirname(__file__))!r}]
from benchmarks import peers
if peers.torchvision_needs_stub():
    peers.install_torchvision_stub()
import fastfid.compat.torchmetrics
from test_compat_torchmetrics import Means, images
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
fid = fastfid.compat.torchmetrics.FrechetInceptionDistance(feature=Means())
fid.update(images(30, 0)[rank::2], real=True)
if rank == 0:
    fid.update(images(30, 1), real=False)
print(float(fid.compute()), int(fid.real_features_num_samples), int(fid.fake_features_num_samples))
dist.destroy_process_group()  # without it a thread of gloo may abort while the interpreter ends
"""
    command = [sys.executable, "-c", script]
    processes = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "rendezvous")], stdout=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    expected = truth(images(30, 0), images(30, 1))
    for rank, process in enumerate(processes):
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        lines = [line.split() for line in output.splitlines()]
        assert len(lines) == 1
        for value, real, fake in lines:
            assert float(value) == pytest.approx(expected, rel=FLOAT32_VALUE)
            assert (int(real), int(fake)) == (15, 30 if rank == 0 else 0)


def imported_with(tmp_path, torchmetrics):
    """The last line of what `import fastfid.compat.torchmetrics` says beside a module torchmetrics of this text."""
    (tmp_path / "torchmetrics.py").write_text(torchmetrics)
    done = subprocess.run(
        [sys.executable, "-c", "import fastfid.compat.torchmetrics"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 1
    return done.stderr.splitlines()[-1]


def test_without_torchmetrics_it_says_what_to_install(tmp_path):
    missing = "raise ModuleNotFoundError(\"No module named 'torchmetrics'\", name='torchmetrics')\n"
    said = imported_with(tmp_path, missing)
    assert said.startswith("ImportError: fastfid.compat.torchmetrics is a torchmetrics.Metric")
    assert "pip install torchmetrics" in said


def test_a_torchmetrics_that_does_not_load_is_said(tmp_path):
    operator = "operator torchvision::nms does not exist"
    assert imported_with(tmp_path, f"raise RuntimeError('{operator}')\n") == f"RuntimeError: {operator}"
    said = imported_with(tmp_path, "import no_such_module_of_torchvision\n")
    assert said == "ModuleNotFoundError: No module named 'no_such_module_of_torchvision'"


def test_a_checkpoint_of_torchmetrics_loads(FrechetInceptionDistance):
    class Module(torch.nn.Module):
        def __init__(self, feature=64):
            super().__init__()
            self.net = torch.nn.Linear(2, 2)
            self.fid = FrechetInceptionDistance(feature=feature)

    old = Module().state_dict()
    old["fid.inception.Conv2d_1a_3x3.conv.weight"] = torch.zeros(32, 3, 3, 3)  # one of 566 that torchmetrics saves
    Module().load_state_dict(old)
    # A network of the caller's own is as strict as ever.
    with pytest.raises(RuntimeError, match="Unexpected key"):
        Module(Means()).load_state_dict({**Module(Means()).state_dict(), **old})


@pytest.mark.parametrize(("values", "how"), [((0.0, 1.02), "x.clamp"), ((-1.0, 1.0), "/ 2).clamp")])
def test_values_outside_say_the_way(FrechetInceptionDistance, values, how):
    fid = FrechetInceptionDistance(feature=64, normalize=True)
    with pytest.raises(ValueError, match=re.escape(how)):
        fid.update(torch.linspace(*values, 2 * 3 * 8 * 8).view(2, 3, 8, 8), real=True)


def test_without_torch_it_says_what_to_install():
    code = "import sys; sys.modules['torch'] = None\nimport fastfid.compat.torchmetrics"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].startswith("ImportError: fastfid.compat.torchmetrics works on torch tensors")
    assert "pip install torch" in done.stderr
