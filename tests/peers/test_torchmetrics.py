"""Comparison with torchmetrics (and torch-fidelity, whose network it uses) on the same images and weights.

NOT_REPRODUCED, at the end, lists the behaviour of torchmetrics that is deliberately different, with the test that shows
the improvement.
"""

import copy
import importlib
import inspect
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tolerances import (
    ANOTHER_NUMBER,
    EQUAL_GAUSSIANS,
    FEATURES_BLOWN_UP,
    PEERS_DISTANCE,
    PEERS_EIGENVALUES_SHOW,
    PEERS_FID,
    PEERS_FID_BLOWN_UP,
    PEERS_KID,
    PEERS_SINGULAR,
    PEERS_SUMS,
    PEERS_SUMS_FLOAT64,
)

import fastfid
from fastfid.compat.cleanfid.fid import kernel_distance
from fastfid.evaluation.evaluate import compute_fid


@pytest.fixture(scope="session")
def our_fid(environment):
    return importlib.import_module("fastfid.compat.torchmetrics").FrechetInceptionDistance


@pytest.fixture(scope="session")
def both(torchmetrics_fid, our_fid):
    return torchmetrics_fid, our_fid


@pytest.fixture(scope="session")
def tensors(many):
    """The first 90 and 80 small photographs as tensors: more than the 64 dimensions of the first layer."""
    return tuple(
        torch.from_numpy(np.stack([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())[:n]])).permute(
            0, 3, 1, 2
        )
        for folder, n in zip(many, (90, 80), strict=True)
    )


def distance(metric, real, fake, batch=40):
    for side, images in ((True, real), (False, fake)):
        for part in images.split(batch):
            metric.update(part, real=side)
    return metric.compute()


def assert_same(found, expected, rel=PEERS_FID, **tolerance):
    assert (found.dtype, found.shape, found.device) == (expected.dtype, expected.shape, expected.device)
    assert float(found) == pytest.approx(float(expected), rel=rel, **tolerance)


def assert_same_states(found, expected, rtol=0.0):
    assert list(found.metric_state) == list(expected.metric_state)
    for name, state in expected.metric_state.items():
        torch.testing.assert_close(found.metric_state[name], state, rtol=rtol, atol=0)  # dtype, shape, device too


class Means(torch.nn.Module):
    """Cheap features of whole numbers, whose sums are exact: the states of either must be the same bits."""

    num_features = 12

    def forward(self, x):
        quarters = x.unfold(2, x.shape[2] // 2, x.shape[2] // 2).unfold(3, x.shape[3] // 2, x.shape[3] // 2)
        return quarters[:, :, :2, :2, 0, 0].flatten(1).float()


def test_the_documented_value(both):
    """torchmetrics documents tensor(12.6388) for feature=64 and seed 42, its images drawn after its construction."""
    theirs, ours = both
    torch.manual_seed(42)
    theirs(feature=64)
    real = torch.randint(0, 200, (100, 3, 299, 299), dtype=torch.uint8)
    fake = torch.randint(100, 255, (100, 3, 299, 299), dtype=torch.uint8)
    value = distance(ours(feature=64), real, fake)
    assert str(value) == "tensor(12.6388)"
    # The same scale, (x - 128) / 128, by its protocol.
    fid = compute_fid(real.numpy(), fake.numpy(), dims=64, protocol="torchmetrics", device="cpu")
    assert f"{fid:.4f}" == "12.6388"
    assert float(distance(theirs(feature=64), real, fake)) == pytest.approx(float(value), rel=PEERS_FID)


def test_signatures_are_the_same(both):
    for name in ("__init__", "update", "compute", "reset", "set_dtype", "plot", "merge_state"):
        expected, found = (dict(inspect.signature(getattr(metric, name)).parameters) for metric in both)
        ours_alone = found.pop("real_statistics", None)
        assert (ours_alone is not None) == (name == "__init__")
        assert ours_alone is None or ours_alone.kind is inspect.Parameter.KEYWORD_ONLY
        assert [(p.name, p.default) for p in found.values()] == [(p.name, p.default) for p in expected.values()], name
    for name in ("higher_is_better", "is_differentiable", "full_state_update", "plot_lower_bound", "feature_network"):
        assert getattr(both[0], name) == getattr(both[1], name), name


# Values.


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
def test_more_images_than_dimensions(both, tensors, antialias, normalize):
    real, fake = (images / 255 for images in tensors) if normalize else tensors
    theirs, ours = (metric(feature=64, antialias=antialias, normalize=normalize) for metric in both)
    expected, found = (distance(metric, real, fake) for metric in (theirs, ours))
    assert_same(found, expected)
    assert_same_states(ours, theirs, rtol=PEERS_SUMS)


def test_fixed_statistics_of_a_folder(both, many, tensors, tmp_path):
    """Statistics of the files, made once, against the real images in torchmetrics' metric."""
    real, fake = tensors
    theirs, ours = both
    paths = sorted(many[0].iterdir())[: len(real)]
    path = fastfid.compute_statistics(paths, dims=64, protocol="torchmetrics", device="cpu").save(tmp_path / "real.npz")
    fid = ours(feature=64, real_statistics=path)
    expected = distance(theirs(feature=64), real, fake)
    for _ in range(2):
        fid.update(fake, real=False)
        assert_same(fid.compute(), expected)
        fid.reset()


def test_float64(both, tensors):
    """The whole network in float64, as torchmetrics recommends. For more images than dimensions see Unnamed."""
    real, fake = (images[:12] for images in tensors)
    theirs, ours = (metric(feature=64).set_dtype(torch.float64) for metric in both)
    expected, found = (distance(metric, real, fake) for metric in (theirs, ours))
    assert found.dtype == torch.float64
    assert_same(found, expected, rel=PEERS_FID)
    for name, state in theirs.metric_state.items():  # torchmetrics makes the counts float64 too
        torch.testing.assert_close(ours.metric_state[name], state, rtol=PEERS_SUMS_FLOAT64, atol=0, check_dtype=False)


@pytest.mark.parametrize("feature", [64, 192, 768])
def test_fewer_images_than_dimensions(both, tensors, feature):
    real, fake = (images[:9] for images in tensors)
    expected, found = (distance(metric(feature=feature), real, fake) for metric in both)
    assert_same(found, expected, rel=0, abs=PEERS_SINGULAR)


def test_the_last_layer(both, tensors):
    real, fake = (images[:3] for images in tensors)
    metrics = [metric() for metric in both]
    for metric in metrics:
        metric.update(real, real=True)
        metric.update(fake, real=False)
    for name, state in metrics[0].metric_state.items():
        if "cov" not in name:
            torch.testing.assert_close(metrics[1].metric_state[name], state, rtol=0, atol=FEATURES_BLOWN_UP)
    # 6 images in 2048 dimensions. torchmetrics' eigenvalues of 2048 x 2048 take a minute; every fourth feature will do.
    for metric in metrics:
        for name, state in metric.metric_state.items():
            setattr(metric, name, state[(slice(None, None, 4),) * state.ndim].contiguous())
    assert_same(metrics[1].compute(), metrics[0].compute(), rel=PEERS_FID_BLOWN_UP)


# Networks of one's own.


class Unnamed(torch.nn.Module):
    """Says nothing of its features: it is tried on an image."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append((tuple(x.shape), x.dtype))
        return torch.nn.functional.adaptive_avg_pool2d(x.double(), 2).flatten(1)


@pytest.mark.parametrize("normalize", [True, False])
def test_networks_of_ones_own(both, tensors, normalize):
    real, fake = (images / 255 for images in tensors) if normalize else tensors
    expected, found = (distance(metric(feature=Means(), normalize=normalize), real, fake) for metric in both)
    assert_same(found, expected)
    named = Means()
    named.num_features = torch.tensor(12)
    assert_same(distance(both[1](feature=named, normalize=normalize), real, fake), expected)
    networks = [Unnamed(), Unnamed()]
    values = [
        distance(metric(feature=network, normalize=normalize, input_img_size=(3, 20, 30)), real, fake)
        for metric, network in zip(both, networks, strict=True)
    ]
    assert networks[0].seen == networks[1].seen
    assert networks[1].seen[0] == ((1, 3, 20, 30), torch.float32 if normalize else torch.uint8)
    assert_same(values[1], values[0], rel=PEERS_DISTANCE)


def test_one_row_may_be_flat(both):
    network = torch.nn.Identity()
    network.num_features = 3
    metrics = [metric(feature=network) for metric in both]
    for metric in metrics:
        metric.update(torch.tensor([1.0, 2.0, 3.0]), real=True)
    assert_same_states(metrics[1], metrics[0])


# States.


def test_the_six_states_are_the_same_sums(both, tensors):
    metrics = [metric(feature=Means()) for metric in both]
    for metric in metrics:
        distance(metric, *tensors)
    assert len(metrics[1].metric_state) == 6
    assert_same_states(metrics[1], metrics[0])
    assert metrics[1].update_count == metrics[0].update_count


def test_states_are_merged_and_exchanged(both, tensors):
    real, fake = tensors
    halves = []
    for metric in both:
        first, second = metric(feature=Means()), metric(feature=Means())
        first.update(real[:50], real=True)
        first.update(fake[:30], real=False)
        second.update(real[50:], real=True)
        second.update(fake[30:], real=False)
        halves.append((first, second))
    for merge in (lambda other: other, lambda other: other.metric_state):
        merged = [copy.deepcopy(first) for first, _ in halves]
        for metric, (_, second) in zip(merged, halves, strict=True):
            metric.merge_state(merge(second))
        assert_same_states(merged[1], merged[0])
        assert_same(merged[1].compute(), merged[0].compute())
    # The states of either go into the other.
    for metric, foreign in ((halves[0][0], halves[1][1]), (halves[1][0], halves[0][1])):
        metric.merge_state(foreign.metric_state)
        assert_same_states(metric, merged[0])


def test_pickles_copies_and_state_dicts(both, tensors):
    real, fake = tensors
    values = []
    for metric in both:
        fid = metric(feature=Means())
        fid.persistent(True)
        fid.update(real, real=True)
        again = metric(feature=Means())
        again.load_state_dict(fid.state_dict())
        for other in (pickle.loads(pickle.dumps(fid)), copy.deepcopy(fid), fid.clone(), again):
            other.update(fake, real=False)
            values.append(other.compute())
            assert fid.fake_features_num_samples == 0
        values.append(sorted(fid.state_dict()))
    assert values[9] == values[4]
    for found, expected in zip(values[5:9], values[:4], strict=True):
        assert_same(found, expected)


@pytest.mark.parametrize("keep", [True, False])
def test_reset(both, tensors, keep):
    real, fake = tensors
    metrics = [metric(feature=Means(), reset_real_features=not keep) for metric in both]
    for metric in metrics:
        distance(metric, real, fake)
        metric.reset()
    assert_same_states(metrics[1], metrics[0])
    assert (metrics[1].real_features_num_samples == 90) == keep
    for metric in metrics:
        metric.update(fake[:20], real=False)
        if not keep:
            metric.update(real[:20], real=True)
    assert_same(metrics[1].compute(), metrics[0].compute())


def test_moving_and_casting(both, tensors):
    for move in (
        lambda metric: metric.to("cpu"),
        lambda metric: metric.to(torch.device("cpu")),
        lambda metric: metric.cpu(),
        lambda metric: metric.double(),  # torchmetrics leaves casts to set_dtype
        lambda metric: metric.half(),
        lambda metric: metric.train(),
    ):
        theirs, ours = (metric(feature=Means()) for metric in both)
        for metric in (theirs, ours):
            metric.update(tensors[0], real=True)
            assert move(metric) is metric
            metric.update(tensors[1], real=False)
        assert_same_states(ours, theirs)
        assert ours.device == theirs.device
        assert_same(ours.compute(), theirs.compute())


def test_states_of_another_device(both):
    """A device without arithmetic shows that every state moves, and back."""
    for metric in both:
        fid = metric(feature=Means()).to("meta")
        assert {state.device.type for state in fid.metric_state.values()} == {"meta"}
        assert fid.device.type == "meta"
        fid.reset()
        assert {state.device.type for state in fid.metric_state.values()} == {"meta"}


def test_the_value_is_kept_until_the_next_update(both, tensors):
    for metric in both:
        fid = metric(feature=Means())
        first = distance(fid, *tensors)
        assert fid.compute() is first
        fid.update(tensors[0][:30], real=False)
        assert fid.compute() != first


# With torchmetrics' own machinery.


def test_a_collection_of_theirs_and_ours(both, tensors):
    from torchmetrics import MetricCollection

    metrics = {"theirs": both[0](feature=Means()), "ours": both[1](feature=Means())}
    collection = MetricCollection(metrics, prefix="val/")
    for real, images in zip((True, False), tensors, strict=True):
        for part in images.split(30):  # from the second on, metrics of equal states share them
            collection.update(part, real=real)
    values = collection.compute()
    assert_same(values["val/ours"], values["val/theirs"])
    assert_same(values["val/ours"], distance(both[0](feature=Means()), *tensors))
    collection.reset()
    assert collection["ours"].real_features_num_samples == 0


@pytest.mark.filterwarnings("ignore:The network to share", "ignore:Metric `Kernel Inception Distance`")
def test_features_can_be_shared_with_other_metrics(both, tensors):
    from torchmetrics.image.kid import KernelInceptionDistance
    from torchmetrics.wrappers import FeatureShare

    real, fake = (images[:24] for images in tensors)
    values = []
    for metric in both:
        kid = KernelInceptionDistance(feature=64, subset_size=24, subsets=1)
        shared = FeatureShare({"fid": metric(feature=64), "kid": kid})
        shared.update(real, real=True)
        shared.update(fake, real=False)
        values.append(shared.compute())
        assert shared["fid"].inception is shared["kid"].inception
    assert_same(values[1]["fid"], values[0]["fid"], rel=PEERS_FID_BLOWN_UP)
    assert_same(values[1]["kid"][0], values[0]["kid"][0], rel=PEERS_KID)


def test_lightning_style_logging(both, tensors):
    """What Lightning does with a metric that is logged as an object: it is a child of the module, updated in the steps,
    computed and reset at the end of the epoch, and its sync is left to compute."""
    import torchmetrics

    class Model(torch.nn.Module):
        def __init__(self, metric):
            super().__init__()
            self.layer = torch.nn.Linear(2, 2)
            self.fid = metric

    values = []
    for metric in both:
        model = Model(metric(feature=Means(), reset_real_features=False, sync_on_compute=False))
        logged = [child for child in model.children() if isinstance(child, torchmetrics.Metric)]
        assert logged == [model.fid]
        assert sorted(model.state_dict()) == ["layer.bias", "layer.weight"]
        model.train().eval().to("cpu")
        for real in tensors[0].split(45):
            logged[0].update(real, real=True)
        for epoch in (0, 1):
            for fake in tensors[1][40 * epoch :].split(40):
                logged[0].update(fake, real=False)
            assert logged[0].update_called
            assert logged[0]._forward_cache is None  # Lightning looks here for the value of the step
            with logged[0].sync_context(should_sync=False):
                values.append(logged[0].compute())
            logged[0].reset()
    for found, expected in zip(values[2:], values[:2], strict=True):
        assert_same(found, expected)


def test_sums_over_processes(both, tensors):
    """The reduction itself, with torchmetrics' hook for it in place of a process group."""
    real, fake = tensors
    for n in (1, 2):
        values = []
        for metric in both:
            other = metric(feature=Means())
            other.update(real[40:], real=True)
            other.update(fake[40:], real=False)
            states = [[state] * n for state in other.metric_state.values()]

            def gather(state, group=None, states=states):
                theirs = states[gather.calls % 6]
                gather.calls += 1
                assert theirs[0].shape == state.shape
                return [state, *theirs]

            gather.calls = 0
            fid = metric(feature=Means(), dist_sync_fn=gather, distributed_available_fn=lambda: True)
            fid.update(real[:40], real=True)
            fid.update(fake[:40], real=False)
            values.append(fid.compute())
            assert fid.real_features_num_samples == 40  # its own again
        assert_same(values[1], values[0])
    assert float(values[1]) != pytest.approx(float(distance(both[1](feature=Means()), real, fake)), rel=ANOTHER_NUMBER)


def test_two_processes(both, tensors, tmp_path, environment):
    """Both metrics in either of two processes; the second sees no fake image."""
    torch.save([images[:40] for images in tensors], tmp_path / "images.pt")
    script = f"""
import sys, torch, torch.distributed as dist
sys.path[:0] = [{str(Path(__file__).parents[2])!r}]
from benchmarks import peers
if peers.torchvision_needs_stub():
    peers.install_torchvision_stub()
from torchmetrics.image.fid import FrechetInceptionDistance as Theirs
from fastfid.compat.torchmetrics import FrechetInceptionDistance as Ours
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
real, fake = torch.load(sys.argv[3])
network = torch.nn.AdaptiveAvgPool2d(2)
class Means(torch.nn.Module):
    num_features = 12
    def forward(self, x):
        return network(x.double()).flatten(1)
for metric in (Theirs, Ours):
    fid = metric(feature=Means())
    fid.update(real[rank::2], real=True)
    if rank == 0:
        fid.update(fake, real=False)
    print(repr(float(fid.compute())), int(fid.real_features_num_samples), int(fid.fake_features_num_samples))
dist.destroy_process_group()
"""
    command = [sys.executable, "-c", script]
    paths = [str(tmp_path / "rendezvous"), str(tmp_path / "images.pt")]
    processes = [
        subprocess.Popen([*command, str(rank), *paths], stdout=subprocess.PIPE, text=True, env=environment)
        for rank in (0, 1)
    ]
    for rank, process in enumerate(processes):
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0
        theirs, ours = (line.split() for line in output.splitlines())
        assert float(ours[0]) == pytest.approx(float(theirs[0]), rel=PEERS_DISTANCE)
        assert ours[1:] == theirs[1:] == ["20", "40" if rank == 0 else "0"]


# Exceptions.


def one_fake_image(metric):
    return distance(metric(feature=Means()), torch.rand(3, 3, 4, 4), torch.rand(1, 3, 4, 4))


def wrong_number_of_features(metric):
    network = Means()
    network.num_features = "12"
    return metric(feature=network)


EXCEPTIONS = {
    "normalize": lambda metric: metric(normalize="yes"),
    "reset_real_features": lambda metric: metric(feature=64, reset_real_features="yes"),
    "feature": lambda metric: metric(feature=100),
    "feature of another type": lambda metric: metric(feature="64"),
    "num_features": wrong_number_of_features,
    "unknown keyword": lambda metric: metric(feature=64, no_such_keyword=1),
    "sync_on_compute": lambda metric: metric(feature=64, sync_on_compute="yes"),
    "float images": lambda metric: metric(feature=64).update(torch.rand(2, 3, 80, 80), real=True),
    "merged with a number": lambda metric: metric(feature=64).merge_state(3),
    "merged with another metric": lambda metric: metric(feature=64).merge_state(torch_metric()),
    "one image": one_fake_image,
    "no image": lambda metric: metric(feature=Means()).compute(),
}


def torch_metric():
    from torchmetrics import MeanMetric

    return MeanMetric()


@pytest.mark.parametrize("case", EXCEPTIONS)
@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_exceptions_and_texts_are_the_same(both, case):
    errors = []
    for metric in both:
        with pytest.raises(Exception) as raised:  # noqa: PT011 - which one is what is asked
            EXCEPTIONS[case](metric)
        errors.append((type(raised.value), str(raised.value)))
    assert errors[1] == errors[0]


# What is not reproduced.


def test_better_values_outside_0_to_1_do_not_wrap_around(both):
    images = torch.full((2, 3, 80, 80), 257 / 255)
    theirs, ours = (metric(feature=64, normalize=True) for metric in both)
    theirs.update(images, real=True)
    dark = torch.full_like(images, 1 / 255)
    wrapped = both[0](feature=64, normalize=True)
    wrapped.update(dark, real=True)
    assert torch.equal(theirs.real_features_sum, wrapped.real_features_sum)  # white became black
    with pytest.raises(ValueError, match=r"values in \[0, 1\] with normalize=True, got 1\.00"):
        ours.update(images, real=True)


def test_better_elsewhere_values_are_rounded_in_the_open(both):
    # In the class with torchmetrics' name, normalize=True truncates, because this affects the value.
    grey = torch.full((2, 3, 80, 80), 0.999)  # 254.7: cut off to 254
    metrics = [metric(feature=64, normalize=normalize) for metric in both for normalize in (True, False)]
    for metric in metrics:
        metric.update(grey if metric.normalize else torch.full_like(grey, 254, dtype=torch.uint8), real=True)
    assert torch.equal(metrics[0].real_features_sum, metrics[1].real_features_sum)
    assert torch.equal(metrics[2].real_features_sum, metrics[3].real_features_sum)
    # fastfid.FID converts nothing, and its error states how to round.
    with pytest.raises(TypeError, match=r"\(x \* 255\)\.round\(\)\.clamp\(0, 255\)\.to\(torch\.uint8\)"):
        fastfid.FID(dims=64, device="cpu").update(grey, real=True)


def test_better_the_docstring_names_the_arguments(both):
    theirs, ours = (inspect.getdoc(metric) for metric in both)
    assert "use_antialias: " in theirs
    assert "use_antialias" not in inspect.signature(both[0]).parameters
    for name in set(inspect.signature(both[1]).parameters) - {"kwargs"}:
        assert f"\n{name} : " in ours


def test_better_a_process_without_a_batch_can_compute(both, tensors):
    theirs, ours = (metric(feature=Means()) for metric in both)
    for metric, seen in zip((theirs, ours), (metric(feature=Means()) for metric in both), strict=True):
        distance(seen, *tensors)
        for name, state in seen.metric_state.items():  # what the reduction over processes does
            setattr(metric, name, state)
    with pytest.warns(UserWarning, match="before the ``update``"), pytest.raises(AttributeError, match="orig_dtype"):
        theirs.compute()
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert_same(ours.compute(), seen.compute())


def test_better_sums_stay_float64(both):
    theirs, ours = (metric(feature=Means()).set_dtype(torch.float16) for metric in both)
    assert theirs.real_features_cov_sum.dtype == torch.float16
    assert ours.real_features_cov_sum.dtype == torch.float64


def test_better_few_images_are_exact(both):
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(6, 3, 2, 2, generator=generator, dtype=torch.float64)
    network = torch.nn.Flatten()
    network.num_features = 12
    errors = [abs(float(distance(metric(feature=network), rows, rows + 1)) - 12) for metric in both]
    assert errors[0] > PEERS_EIGENVALUES_SHOW  # eigenvalues of a product that is neither symmetric nor regular
    assert errors[1] < EQUAL_GAUSSIANS


def test_better_a_batch_that_fails_loses_nothing(both, tensors):
    fids = [metric(feature=Means()) for metric in both]
    for fid in fids:
        fid.update(tensors[0], real=True)
        with pytest.raises(RuntimeError, match="More than one sample"):
            fid(tensors[1], real=False)
    assert fids[0].real_features_num_samples == 0
    assert fids[1].real_features_num_samples == 90


def test_better_construction_loads_nothing(both, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("FASTFID_WEIGHTS", str(tmp_path / "missing"))
    with pytest.raises(OSError, match=r".+"):
        both[0](feature=64)
    assert both[1](feature=64).real_features_sum.shape == (64,)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
def test_better_kid_has_a_seed_and_either_resize(both, tensors):
    from torchmetrics.image.kid import KernelInceptionDistance

    assert "antialias" not in inspect.signature(KernelInceptionDistance).parameters
    sides = [images[:20] for images in tensors]
    theirs = KernelInceptionDistance(feature=64, subset_size=10, subsets=2)
    for real, images in zip((True, False), sides, strict=True):
        theirs.update(images, real=real)
    assert theirs._computed is None
    values = []
    for _ in range(2):
        values.append(theirs.compute())
        theirs._computed = None
    assert values[0] != values[1]
    whole = KernelInceptionDistance(feature=64, subset_size=20, subsets=1)  # the one subset is all images
    for real, images in zip((True, False), sides, strict=True):
        whole.update(images, real=real)
    found = {}
    for protocol in ("torchmetrics", "tensorflow"):
        rows = [fastfid.InceptionV3(64, protocol=protocol, device="cpu")(images) for images in sides]
        assert kernel_distance(*rows, 2, 10) == kernel_distance(*rows, 2, 10)
        found[protocol] = kernel_distance(*rows, 1, 20)
    assert found["torchmetrics"] == pytest.approx(float(whole.compute()[0]), rel=PEERS_KID)
    assert found["tensorflow"] != pytest.approx(found["torchmetrics"], rel=ANOTHER_NUMBER)


NOT_REPRODUCED = {
    "normalize wraps values outside [0, 1] around": test_better_values_outside_0_to_1_do_not_wrap_around,
    "normalize cuts off (kept under its name; rounding elsewhere)": (
        test_better_elsewhere_values_are_rounded_in_the_open
    ),
    "the docstring calls antialias use_antialias": test_better_the_docstring_names_the_arguments,
    "AttributeError in a process that saw no batch": test_better_a_process_without_a_batch_can_compute,
    "set_dtype cuts the sums down": test_better_sums_stay_float64,
    "general eigenvalues": test_better_few_images_are_exact,
    "forward of one side loses the states": test_better_a_batch_that_fails_loses_nothing,
    "construction loads the network, and needs torch-fidelity": test_better_construction_loads_nothing,
    "unseeded subsets of KID": test_better_kid_has_a_seed_and_either_resize,
    "antialias of KID that cannot be switched off": test_better_kid_has_a_seed_and_either_resize,
}


def test_the_table_of_what_is_not_reproduced_is_whole():
    named = {name for name in globals() if name.startswith("test_better_")}
    assert named == {test.__name__ for test in NOT_REPRODUCED.values()}


def test_torch_fidelity_gives_the_numbers_of_the_tensorflow_protocol(environment, many, tmp_path):
    import torch_fidelity

    sides = []
    for folder in many:
        sides.append(tmp_path / folder.name)
        sides[-1].mkdir()
        for path in sorted(folder.iterdir())[:70]:
            (sides[-1] / path.name).hardlink_to(path)
    metrics = torch_fidelity.calculate_metrics(
        input1=str(sides[0]),
        input2=str(sides[1]),
        fid=True,
        feature_layer_fid="64",
        cuda=False,
        cache=False,
        verbose=False,
    )
    found = compute_fid(*sides, dims=64, protocol="tensorflow", device="cpu")
    assert found == pytest.approx(metrics["frechet_inception_distance"], rel=PEERS_FID)
