"""The functions of ``fastfid.metrics`` beside the tools whose conventions they have, on the same features."""

import importlib

import numpy as np
import pytest
import torch
from tolerances import FEW_ROUNDINGS, GOLDEN, KERNEL_MEANS, KID_FLOAT32, PEERS_DISTANCE, SCORE_FLOAT32

from fastfid.metrics import inception_score, kid, mifid, prdc, vendi

X32 = np.random.RandomState(1).randn(1200, 64).astype(np.float32)
Y32 = (np.random.RandomState(2).randn(1100, 64) * 1.1 + 0.1).astype(np.float32)


@pytest.fixture
def peer(environment):
    return importlib.import_module


class Given(torch.nn.Module):
    """The features of "images" that are their numbers."""

    num_features = 64

    def forward(self, images):
        return images.reshape(len(images), -1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("subsets", "size", "seed"), [(100, 1000, None), (7, 50, 5)])
def test_kid_of_torch_fidelity(peer, dtype, subsets, size, seed):
    x, y = X32.astype(dtype), Y32.astype(dtype)
    expected = peer("torch_fidelity.metric_kid").kid_features_to_metric(
        torch.from_numpy(x),
        torch.from_numpy(y),
        kid_subsets=subsets,
        kid_subset_size=size,
        rng_seed=2020 if seed is None else seed,
        verbose=False,
    )
    found = kid(x, y, protocol="torch-fidelity", subsets=subsets, subset_size=size, seed=seed)
    near = KID_FLOAT32 if dtype == np.float32 else KERNEL_MEANS
    assert found.value == pytest.approx(expected["kernel_inception_distance_mean"], rel=0, abs=near)
    assert found.std == pytest.approx(expected["kernel_inception_distance_std"], rel=0, abs=near)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save all:UserWarning")
@pytest.mark.parametrize("seed", [None, 4])
def test_kid_of_torchmetrics(peer, seed):
    theirs = peer("torchmetrics.image.kid").KernelInceptionDistance(feature=Given(), subsets=20, subset_size=500)
    theirs.update(torch.from_numpy(X32), real=True)
    theirs.update(torch.from_numpy(Y32), real=False)
    torch.manual_seed(4)
    expected = [float(value) for value in theirs.compute()]
    torch.manual_seed(4 if seed is None else 9)
    found = kid(X32, Y32, protocol="torchmetrics", subsets=20, subset_size=500, seed=seed)
    assert [found.value, found.std] == pytest.approx(expected, rel=0, abs=KID_FLOAT32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kid_of_clean_fid(cleanfid, dtype):
    real, fake = X32.astype(dtype), Y32[:300].astype(dtype)  # fewer than a subset
    np.random.seed(3)  # noqa: NPY002
    expected = cleanfid.kernel_distance(real, fake, num_subsets=20)
    np.random.seed(3)  # noqa: NPY002
    found = kid(fake, real, protocol="clean-fid", subsets=20)
    near = KID_FLOAT32 if dtype == np.float32 else KERNEL_MEANS
    assert found.value == pytest.approx(expected, rel=0, abs=near)
    assert found.value == pytest.approx(
        kid(fake, real, protocol="clean-fid", subsets=20, seed=3).value, rel=KERNEL_MEANS
    )


LOGITS = (np.random.RandomState(7).randn(1003, 1008) * 3).astype(np.float32)


@pytest.mark.parametrize(("splits", "shuffle", "seed"), [(10, True, 2020), (7, True, 3), (10, False, 2020)])
def test_inception_score_of_torch_fidelity(peer, splits, shuffle, seed):
    expected = peer("torch_fidelity.metric_isc").isc_features_to_metric(
        torch.from_numpy(LOGITS), splits=splits, shuffle=shuffle, rng_seed=seed
    )
    order = "shuffle" if shuffle else "given"
    found = inception_score(LOGITS, protocol="torch-fidelity", splits=splits, order=order, seed=seed)
    assert found.value == pytest.approx(expected["inception_score_mean"], rel=GOLDEN)
    assert found.std == pytest.approx(expected["inception_score_std"], rel=GOLDEN)


@pytest.mark.filterwarnings("ignore:Metric `InceptionScore` will save all:UserWarning")
@pytest.mark.parametrize("seed", [None, 4])
@pytest.mark.parametrize("splits", [10, 400])
def test_inception_score_of_torchmetrics(peer, splits, seed):
    """1,003 rows in 400 splits are 335 blocks."""
    theirs = peer("torchmetrics.image.inception").InceptionScore(feature=Given(), splits=splits)
    theirs.update(torch.from_numpy(LOGITS))
    torch.manual_seed(4)
    value, std = (float(number) for number in theirs.compute())
    torch.manual_seed(4 if seed is None else 9)
    found = inception_score(LOGITS, protocol="torchmetrics", splits=splits, seed=seed)
    assert found.value == pytest.approx(value, rel=SCORE_FLOAT32)
    assert found.std == pytest.approx(std, rel=0, abs=SCORE_FLOAT32 * value)


@pytest.mark.parametrize("shift", [0, 3])
def test_mifid_of_torchmetrics(peer, shift):
    """Shifted rows are nearly parallel, so that their distances are below the threshold."""
    real, fake = (np.abs(rows.astype(np.float64)) + shift for rows in (X32, Y32))
    theirs = peer("torchmetrics.image.mifid").MemorizationInformedFrechetInceptionDistance(feature=Given())
    theirs.update(torch.from_numpy(real), real=True)
    theirs.update(torch.from_numpy(fake), real=False)
    found = mifid(real, fake)
    assert found.value == pytest.approx(float(theirs.compute()), rel=PEERS_DISTANCE)
    assert (found.value > 2 * found.fid) == (shift == 3)


@pytest.mark.parametrize("k", [3, 5])
def test_the_package_prdc(peer, k, capsys):
    """In float64, which decides no pair of these sets otherwise than distances that are summed feature by feature."""
    expected = peer("prdc").compute_prdc(X32.astype(np.float64), Y32.astype(np.float64), nearest_k=k)
    found = prdc(X32, Y32, k=k)
    assert 0 < found.precision < 1
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, rel=FEW_ROUNDINGS)
    assert "Num real" in capsys.readouterr().out  # it prints


@pytest.mark.filterwarnings("ignore:Please import `csr_matrix`:DeprecationWarning")
@pytest.mark.parametrize(("m", "q"), [(1200, 1), (1200, 0.5), (1200, 3), (40, 1), (40, 2)])
def test_vendi_scores_of_the_package(peer, m, q):
    package = peer("vendi_score.vendi")
    rows = X32[:m].astype(np.float64)
    expected = package.score_dual(rows, q=q) if m > 64 else package.score_K(rows @ rows.T, q=q, normalize=True)
    assert vendi(rows, q).value == pytest.approx(expected, rel=GOLDEN)
