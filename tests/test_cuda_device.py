"""Moments on a real CUDA device against the CPU. Skipped where there is none."""

import numpy as np
import pytest
import torch
from tolerances import DISTANCE_ON_DEVICE, MERGED_ON_DEVICE, MOMENTS_ON_DEVICE

import fastfid
from benchmarks.cuda_cases import DEVICE, MomentsCase
from fastfid import _core

devices, reason = _core.cuda_driver()


def needs_device(test):
    """Mark a test that runs on a device, and is skipped where there is none."""
    return pytest.mark.cuda(pytest.mark.skipif(not devices, reason=f"no CUDA device: {reason}")(test))


def on_device(rows):
    """A NumPy array as a CUDA tensor of the same strides; NumPy's bfloat16 is carried by its bits."""
    base = rows if rows.base is None else rows.base
    start = (rows.ctypes.data - base.ctypes.data) // rows.itemsize
    bits = torch.from_numpy(np.ascontiguousarray(base).view(np.uint8).copy()).cuda()
    flat = bits.view(
        {"float32": torch.float32, "float16": torch.float16}.get(rows.dtype.name, torch.bfloat16)
    ).flatten()
    return flat.as_strided(rows.shape, [stride // rows.itemsize for stride in rows.strides], start)


@needs_device
@pytest.mark.parametrize("arithmetic", MOMENTS_ON_DEVICE)
@pytest.mark.parametrize("case", DEVICE.moments, ids=str)
def test_moments_on_the_device_are_those_of_the_cpu(case, arithmetic):
    moments, cpu = fastfid.DeviceMoments._summed_in(arithmetic, case.d), fastfid.Moments(case.d)
    rows = on_device(case.rows())
    for start in range(0, case.n, case.batch):
        moments.update(rows[start : start + case.batch])
    cpu.update(case.rows())
    host = moments.to_host()
    assert host.n == moments.n == case.n
    scale = np.abs(cpu.covariance()).max()
    assert np.abs(host.covariance() - cpu.covariance()).max() < MOMENTS_ON_DEVICE[arithmetic] * scale
    assert np.abs(host.mean - cpu.mean).max() < MOMENTS_ON_DEVICE[arithmetic] * np.abs(cpu.mean).max()
    if case.is_thin:
        np.testing.assert_array_equal(host.rows, cpu.rows)


@needs_device
def test_updates_on_two_streams_that_overlap_are_ordered():
    case = MomentsCase(2048, 8000)
    rows = on_device(case.rows())
    expected = fastfid.DeviceMoments(2048)
    expected.update(rows)
    moments = fastfid.DeviceMoments(2048)
    streams = torch.cuda.Stream(), torch.cuda.Stream()
    for stream in streams:
        stream.wait_stream(torch.cuda.current_stream())
    for i, batch in enumerate(rows.split(123)):
        with torch.cuda.stream(streams[i % 2]):
            torch.cuda._sleep(100_000)
            # Filled on this stream, late: read before that, it would be NaN.
            late = torch.full_like(batch, float("nan"))
            torch.cuda._sleep(100_000)
            late.copy_(batch)
            moments.update(late)
            late.fill_(float("inf"))  # after the update, on the same stream
    np.testing.assert_array_equal(moments.to_host().covariance(), expected.to_host().covariance())


@needs_device
def test_an_update_does_not_wait_for_the_device():
    moments = fastfid.DeviceMoments(2048)
    rows = torch.rand(3000, 2048, device="cuda")
    moments.update(rows)
    torch.cuda.synchronize()
    done = torch.cuda.Event()
    torch.cuda._sleep(2_000_000_000)  # about a second
    for _ in range(20):
        moments.update(rows)
    done.record()
    assert not done.query()  # all were accepted while the device slept
    assert moments.to_host().n == 63000


@needs_device
@pytest.mark.parametrize(("n1", "n2"), [(0, 700), (100, 200), (300, 400), (200, 9000), (9000, 200), (5000, 7000)])
def test_a_merge_is_that_of_the_cpu_and_does_not_wait(n1, n2):
    rows = MomentsCase(512, n1).rows(), 2 * MomentsCase(512, n2).rows() + 1
    moments, cpu = [fastfid.DeviceMoments(512) for _ in rows], fastfid.Moments(512)
    warm = fastfid.DeviceMoments(512)
    warm.update(torch.rand(3000, 512, device="cuda"))
    warm.merge(warm)
    there = [on_device(np.ascontiguousarray(x)) for x in rows]
    torch.cuda.synchronize()
    done = torch.cuda.Event()
    torch.cuda._sleep(2_000_000_000)  # about a second
    for each, x, given in zip(moments, there, rows, strict=True):
        each.update(x)
        cpu.update(given)
    done.record()
    moments[0].merge(moments[1])
    assert not done.query()  # merged, for all the host knows, while the device slept
    moments[1].reset()  # ordered after the merge
    host = moments[0].to_host()
    assert host.n == n1 + n2
    assert np.abs(host.covariance() - cpu.covariance()).max() < MERGED_ON_DEVICE * np.abs(cpu.covariance()).max()
    np.testing.assert_allclose(host.mean, cpu.mean, rtol=MERGED_ON_DEVICE)


@needs_device
@pytest.mark.parametrize("n", [0, 100, 512, 513, 5000])
def test_a_state_goes_from_the_device_to_the_host_and_back(n):
    rows, more = MomentsCase(512, n).rows(), MomentsCase(512, 3000).rows()
    moments, cpu = fastfid.DeviceMoments(512), fastfid.Moments(512)
    moments.update(on_device(np.ascontiguousarray(rows)))
    again = fastfid.DeviceMoments.from_state(fastfid.Moments.from_state(moments.state()).state())
    assert again.n == n
    for each in (moments, again):
        each.update(on_device(more))
    cpu.update(rows)
    cpu.update(more)
    for each in (moments, again):
        host = each.to_host()
        assert host.n == n + 3000
        assert np.abs(host.covariance() - cpu.covariance()).max() < MERGED_ON_DEVICE * np.abs(cpu.covariance()).max()
        np.testing.assert_allclose(host.mean, cpu.mean, rtol=MERGED_ON_DEVICE)
    if n <= 512:
        np.testing.assert_array_equal(again.to_host().covariance(), moments.to_host().covariance())


@needs_device
@pytest.mark.parametrize("case", DEVICE.distances, ids=str)
def test_distance_of_moments_that_stay_on_the_device(case):
    moments, statistics = [], []
    for x in case.rows():
        moments.append(fastfid.DeviceMoments(case.d))
        moments[-1].update(on_device(x.copy()))
        there = fastfid.Moments(case.d)
        there.update(x)
        statistics.append(fastfid.Statistics.from_moments(there))
    want = fastfid.frechet_distance(*statistics, return_info=True)
    size = want["trace1"] + want["trace2"]
    for sides in (moments, (moments[0], statistics[1]), (statistics[0], moments[1])):
        got = fastfid.frechet_distance(*sides, device="cuda", tol=1e-9, return_info=True)
        assert got["fid"] == pytest.approx(want["fid"], abs=DISTANCE_ON_DEVICE * size)
        assert got["numerical_lower"] <= want["numerical_upper"]
        assert want["numerical_lower"] <= got["numerical_upper"]
        assert got["note"] == ""
        assert got["mean_term"] == pytest.approx(want["mean_term"], rel=MERGED_ON_DEVICE)


@needs_device
def test_a_nonfinite_row_is_named_later():
    moments = fastfid.DeviceMoments(64)
    rows = torch.rand(3000, 64, device="cuda")
    rows[2999, 1] = float("nan")
    moments.update(rows)
    with pytest.raises(fastfid.NumericalError, match="row 2999 of those given to update"):
        moments.to_host()
    moments.reset()
    moments.update(rows[:100])
    assert moments.to_host().n == 100


@needs_device
@pytest.mark.parametrize(
    ("x", "error", "text"),
    [
        (lambda: torch.rand(3, 64), ValueError, "x: expected a tensor on cuda:0, got one that is not on a CUDA device"),
        (lambda: torch.rand(3, 63, device="cuda"), ValueError, r"x: expected shape \(n, 64\), got float32 \(3, 63\)"),
        (lambda: torch.rand(64, device="cuda"), TypeError, "x: expected a tensor with 2 dimensions, got float32"),
        (lambda: torch.zeros(3, 64, device="cuda", dtype=torch.float64), TypeError, "x: expected float32, float16 or"),
        (lambda: [1.0], TypeError, "x: expected a tensor that speaks DLPack"),
    ],
)
def test_what_is_refused(x, error, text):
    with pytest.raises(error, match=text):
        fastfid.DeviceMoments(64).update(x())


@pytest.mark.skipif(bool(devices), reason="there is a CUDA device")
def test_without_a_device_the_error_says_what_is_missing():
    with pytest.raises(
        fastfid.BackendUnavailable, match=r"no CUDA device: no NVIDIA driver|built without its CUDA part"
    ):
        fastfid.DeviceMoments(64)
    with pytest.raises(
        fastfid.BackendUnavailable, match=r"no CUDA device: no NVIDIA driver|built without its CUDA part"
    ):
        fastfid.DeviceMoments.from_state(fastfid.Moments(64).state())
