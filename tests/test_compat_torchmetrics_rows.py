"""KID, MIFID and Inception Score of fastfid.compat.torchmetrics, without torchmetrics' own classes.

tests/peers/test_torchmetrics_rows.py compares them with those.
"""

import importlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from metric_cases import CLASSIFIER
from stubs import AllOutputs, GridMeans
from test_compat_torchmetrics import Means, images
from tolerances import FLOAT32_VALUE, KID_FLOAT32

from fastfid.errors import NumericalError
from fastfid.metrics import inception_score, kid, mifid

NAMES = ("KernelInceptionDistance", "MemorizationInformedFrechetInceptionDistance", "InceptionScore")
KID, MIFID, SCORE = NAMES


@pytest.fixture
def compat(torchvision_importable):
    return importlib.import_module("fastfid.compat.torchmetrics")


def rows(batch):
    return Means()(batch).numpy()


def test_values_are_those_of_the_functions(compat):
    real, fake = images(40, 0), images(33, 1, low=40)
    made = compat.KernelInceptionDistance(feature=Means(), subsets=5, subset_size=20, gamma=1e-5)
    made.update(real, real=True)
    for part in fake.split(10):
        made.update(part, real=False)
    torch.manual_seed(1)
    mean, std = made.compute()
    torch.manual_seed(1)
    found = kid(rows(real), rows(fake), protocol="torchmetrics", subsets=5, subset_size=20, gamma=1e-5)
    assert (float(mean), float(std)) == pytest.approx((found.value, found.std), rel=FLOAT32_VALUE)
    made = compat.MemorizationInformedFrechetInceptionDistance(feature=Means(), cosine_distance_eps=0.5)
    made.update(real, real=True)
    made.update(fake, real=False)
    assert float(made.compute()) == pytest.approx(mifid(rows(real), rows(fake), threshold=0.5).value, rel=FLOAT32_VALUE)


class Counting(AllOutputs):
    """The classifier of tests/metric_cases.py, for the Inception network of a metric."""

    def __init__(self):
        super().__init__()
        self.outputs = None

    def forward(self, batch):
        return GridMeans.forward(self, batch)


@pytest.mark.parametrize("kind", [Counting, GridMeans])
def test_the_logits_are_features_times_the_classifier(compat, monkeypatch, kind):
    made = []
    monkeypatch.setattr(
        "fastfid.compat._torchmetrics.network.make_extractor", lambda *asked: made.append(asked) or kind()
    )
    score = compat.InceptionScore(splits=3, feature_extractor_weights_path="w.pth", antialias=False)
    fake = images(30, 1)
    if kind is GridMeans:
        with pytest.raises(ValueError, match="GridMeans has no classifier; the Inception Score needs one"):
            score.update(fake)
        return
    for part in fake.split(12):
        score.update(part)
    assert made == [(2048, "tensorflow", "cpu", "w.pth")]
    features = np.stack([GridMeans().prepare(image) for image in fake.permute(0, 2, 3, 1).numpy()])
    torch.manual_seed(2)
    expected = inception_score(features @ CLASSIFIER.T, protocol="torchmetrics", splits=3)
    torch.manual_seed(2)
    mean, std = score.compute()
    assert (float(mean), float(std)) == pytest.approx((expected.value, expected.std), rel=FLOAT32_VALUE)
    logits = compat.KernelInceptionDistance(feature="logits_unbiased", subset_size=5)
    logits.update(fake, real=True)
    assert logits.real_features[0].shape == (30, 7)
    assert "logits" in repr(score)


def test_normalize_is_of_the_network_and_for_the_score_of_any(compat):
    seen = []

    class Seen(torch.nn.Module):
        def forward(self, x):
            seen.append(x.dtype)
            return x.float().flatten(1)

    batch = torch.rand(4, 3, 2, 2)
    for name in NAMES:
        made = getattr(compat, name)(feature=Seen(), normalize=True)
        made.update(batch, **({} if name == SCORE else {"real": True}))
    assert seen == [torch.float32, torch.float32, torch.uint8]
    for name in NAMES:
        made = getattr(compat, name)(feature=64 if name != SCORE else "logits_unbiased", normalize=True)
        with pytest.raises(ValueError, match=r"imgs: expected values in \[0, 1\] with normalize=True"):
            made.update(batch + 1, **({} if name == SCORE else {"real": True}))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_results_have_the_dtype_of_the_features(compat, dtype):
    class Typed(Means):
        def forward(self, x):
            return super().forward(x).to(dtype)

    for name, options in zip(NAMES, ({"subset_size": 9}, {}, {}), strict=True):
        made = getattr(compat, name)(feature=Typed(), **options)
        for real in (True, False):
            if name == SCORE:
                made.update(images(20, 1) // 16)
            else:
                made.update(images(20, int(real)), real=real)
        value = made.compute()
        assert {part.dtype for part in (value if isinstance(value, tuple) else (value,))} == {dtype}


def test_a_state_dict_is_loaded_as_a_copy(compat):
    made, again = (compat.KernelInceptionDistance(feature=Means()) for _ in range(2))
    made.persistent(True)
    made.update(images(9, 0), real=True)
    saved = made.state_dict()
    again.load_state_dict(saved)
    again.real_features[0][:] = 0
    assert saved["real_features"][0].any()


def test_processes_of_other_numbers_of_batches_are_gathered(tmp_path, compat):
    """Of three real batches a process sees two, the other one, and no fake image. Both compute the whole."""
    script = f"""
import os, sys
import torch, torch.distributed as dist
sys.path[:0] = [{os.path.dirname(__file__)!r}, {os.path.dirname(os.path.dirname(__file__))!r}]
from benchmarks import peers
if peers.torchvision_needs_stub():
    peers.install_torchvision_stub()
from fastfid.compat import torchmetrics
from test_compat_torchmetrics import Means, images
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
real, fake = images(30, 0).split(10)[rank::2], images(30, 1) if rank == 0 else ()
made = [
    torchmetrics.KernelInceptionDistance(feature=Means(), subset_size=30, subsets=1),
    torchmetrics.MemorizationInformedFrechetInceptionDistance(feature=Means()),
    torchmetrics.InceptionScore(feature=Means(), splits=1),
]
for metric in made[:2]:
    for part in real:
        metric.update(part, real=True)
    if rank == 0:
        metric.update(fake, real=False)
if rank == 0:
    made[2].update(fake)
for metric in made:
    value = metric.compute()
    print(float(value[0] if isinstance(value, tuple) else value))
    print(*[sum(map(len, state)) for state in metric.metric_state.values()])
dist.destroy_process_group()
"""
    command = [sys.executable, "-c", script]
    processes = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "rendezvous")], stdout=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    real, fake = rows(images(30, 0)), rows(images(30, 1))
    torch.manual_seed(0)
    expected = [
        kid(real, fake, subsets=1, subset_size=30).value,
        mifid(real, fake).value,
        inception_score(fake, splits=1).value,
    ]
    kept = (["20 30", "20 30", "30"], ["10 0", "10 0", "0"])
    for rank, process in enumerate(processes):
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0
        lines = output.splitlines()
        assert [float(value) for value in lines[::2]] == pytest.approx(expected, rel=FLOAT32_VALUE, abs=KID_FLOAT32)
        assert lines[1::2] == kept[rank]


def test_rows_of_ones_own_may_be_flat(compat):
    made = compat.KernelInceptionDistance(feature=torch.nn.Identity())
    made.update(torch.arange(4.0), real=True)
    assert made.real_features[0].shape == (1, 4)


def test_features_that_are_not_finite_add_nothing(compat):
    made = compat.KernelInceptionDistance(feature=torch.nn.Identity())
    with pytest.raises(NumericalError, match="features: row 1 of the batch has NaN or infinite values"):
        made.update(torch.tensor([[0.0, 1.0], [0.0, float("nan")]]), real=True)
    assert made.real_features == []


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        (KID, {"subsets": 0}, "Argument `subsets` expected to be integer larger than 0"),
        (KID, {"degree": 2.5}, "Argument `degree` expected to be integer larger than 0"),
        (KID, {"gamma": 1}, "Argument `gamma` expected to be `None` or float larger than 0"),
        (KID, {"coef": -1.0}, "Argument `coef` expected to be float larger than 0"),
        (MIFID, {"cosine_distance_eps": 1.5}, "Argument `cosine_distance_eps` expected to be a float greater than 0"),
    ],
)
def test_bad_arguments(compat, name, options, text):
    with pytest.raises(ValueError, match=text):
        getattr(compat, name)(feature=Means(), **options)


def test_fewer_images_than_a_subset(compat):
    made = compat.KernelInceptionDistance(feature=Means(), subset_size=20)
    made.update(images(20, 0), real=True)
    made.update(images(19, 1), real=False)
    with pytest.raises(ValueError, match="Argument `subset_size` should be smaller than the number of samples"):
        made.compute()


def test_the_plot_of_a_score_is_of_its_mean(compat):
    made = compat.InceptionScore(feature=Means(), splits=2)
    made.update(images(20, 0))
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    torch.manual_seed(1)
    expected = made.compute()[0]
    torch.manual_seed(1)
    _, axes = made.plot()
    assert axes.lines[0].get_ydata().tolist() == [expected]
    _, axes = made.plot(torch.tensor([1.5, 2.5]))
    assert [float(line.get_ydata()[0]) for line in axes.lines] == [1.5, 2.5]


def test_gradients_are_not_kept(compat):
    made = compat.KernelInceptionDistance(feature=torch.nn.Linear(3, 2))
    made.update(torch.rand(4, 3, requires_grad=True), real=True)
    assert not made.real_features[0].requires_grad


def test_features_too_large_for_the_kernel_are_refused(compat):
    made = compat.KernelInceptionDistance(feature=torch.nn.Identity(), subset_size=3)
    for real in (True, False):
        made.update(torch.from_numpy(np.full((5, 2), 1e30, np.float32)), real=real)
    with pytest.raises(ValueError, match="the features are too large for the kernel"):
        made.compute()
