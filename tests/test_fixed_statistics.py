"""FID with a real side that is given once, as statistics; and the state of a FID in checkpoints of torch."""

import copy
import io
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from stubs import GridMeans, HostMoments, OnDevice, Tensor
from test_fid import filled, images
from tolerances import ANOTHER_ORDER, FEATURES_EXACT

import fastfid
from fastfid import FID, Statistics, compute_fid, compute_statistics
from fastfid.batches.fixed import is_same
from fastfid.batches.states import as_arrays, as_tensors
from fastfid.beside import command_for
from fastfid.errors import BackendUnavailable, FastfidWarning, SuspiciousInputWarning

ROOT = Path(__file__).resolve().parents[1]


def statistics(seed=1, n=60):
    return compute_statistics(images(n, seed), extractor=GridMeans())


def gaussian(d=64, name="real.npz", **meta):
    return Statistics(np.zeros(d), np.eye(d), 100, meta, name=name)


def fixed(real=None, fake=None):
    fid = FID(real=real or statistics(), extractor=GridMeans())
    if fake is not None:
        fid.update(fake)
    return fid


# The fixed side


def test_the_value_is_that_of_statistics_against_images(tmp_path):
    known, fake = statistics(), images(45, 2)
    truth = compute_fid(known, fake, extractor=GridMeans())
    path = known.save(tmp_path / "real.npz")
    for real in (known, path, str(path)):
        fid = fixed(real)
        fid.update(fake[:20])
        fid.update(fake[20:], real=False)
        assert fid.compute() == truth
        assert fid.real.n == 60
    assert repr(fid) == "FID(dims=12, protocol='none', real=60 (fixed), fake=45)"
    assert "real=unknown (fixed)" in repr(fixed(Statistics(known.mu, known.sigma, meta=known.meta)))


def test_a_standard_error_beside_a_fixed_side_says_whose_it_is(tmp_path):
    known, fake = statistics(), images(45, 2)
    both = fixed(known, fake).result()
    without = Statistics.load(known.save(tmp_path / "real.npz", rows=False))
    generated = fixed(without, fake).result()
    assert (both.standard_error_of, generated.standard_error_of) == ("both", "generated")
    assert generated.standard_error < both.standard_error
    assert both.value == generated.value


def test_rows_of_few_images_stay_exact():
    known = compute_statistics(images(8, 1), extractor=GridMeans())
    fake = images(7, 2)
    assert known.rows is not None
    truth = compute_fid(known, fake, extractor=GridMeans())
    assert fixed(known, fake).compute() == truth
    again = FID(extractor=GridMeans())
    again.load_state_dict(fixed(known, fake).state_dict())
    assert again.compute() == truth


def test_a_reset_keeps_the_fixed_side():
    fake = images(45, 2)
    fid = fixed(fake=images(9, 7))
    for keywords in ({}, {"real": False}, {"real": True}):
        fid.reset(**keywords)
        assert (fid.real.n, fid._count(False)) == (60, 0)
        fid.update(fake)
        assert fid.compute() == compute_fid(statistics(), fake, extractor=GridMeans())
    fid.reset(fake=False)
    assert (fid.real.n, fid.fake.n) == (60, 45)


def test_real_images_are_not_for_a_fixed_side():
    fid = fixed()
    with pytest.raises(ValueError, match="real: the real side is fixed, as array: pass real=False, or make a FID"):
        fid.update(images(3, 1), real=True)
    for real in ("fake", 0):
        with pytest.raises(TypeError, match="real: expected True or False, got"):
            fid.update(images(3, 1), real=real)
    with pytest.raises(TypeError, match="real: expected True or False, got None"):
        FID(extractor=GridMeans()).update(images(3, 1))


def test_the_command_names_the_precision():
    wanted = {"dims": 2048, "protocol": "clean", "precision": "tf32"}
    assert command_for(gaussian(name="my real.npz"), wanted) == (
        "fastfid stats IMAGES -o 'my real.npz' --overwrite --protocol clean --precision tf32"
    )


def test_equal_numbers_of_another_provenance_are_other_statistics():
    one = gaussian(protocol="clean")
    assert is_same(one, gaussian(name="other.npz", protocol="clean"))
    assert not is_same(one, gaussian(protocol="pytorch-fid"))
    assert not is_same(one, gaussian(63, protocol="clean"))


def test_dims_and_protocol_are_those_of_the_statistics():
    with pytest.warns(FastfidWarning, match=r"images are read with 64 dims and protocol clean, as real\.npz was made"):
        fid = FID(real=gaussian(protocol="clean"))
    assert (fid.dims, fid.protocol) == (64, "clean")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert FID(real=gaussian(protocol="clean"), dims=64, protocol="clean").protocol == "clean"


@pytest.mark.parametrize(
    ("options", "meta", "ways"),
    [
        (
            {"dims": 64, "protocol": "torchmetrics"},
            {"protocol": "pytorch-fid"},
            [
                "protocol='pytorch-fid'",
                "fastfid stats IMAGES -o real.npz --overwrite --protocol torchmetrics --dims 64",
            ],
        ),
        (
            {"dims": 64, "protocol": "clean"},
            {"protocol": "clean", "precision": "tf32"},
            ["precision tf32", "precision='tf32'", "fastfid stats", "--protocol clean"],
        ),
        ({"dims": 192}, {}, ["64 dims, but 192", "leave out --dims (dims=)"]),
        ({"dims": 64}, {"protocol": "my own"}, ["protocol my own", "with pytorch-fid: make it again with: fastfid"]),
    ],
)
def test_a_mismatch_names_what_mends_it(options, meta, ways):
    with pytest.raises(ValueError, match=r"^real\.npz ") as refused:
        FID(real=gaussian(**meta), **options)
    for way in ways:
        assert way in str(refused.value)
    assert "pass protocol='my own'" not in str(refused.value)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (gaussian(d=5), "dims 5, and the extractor of the other side has 12"),
        (gaussian(d=12, protocol="clean"), "protocol clean, and the extractor of the other side has none"),
        (gaussian(d=12, extractor="other-means"), "extractor other-means, .* has grid-means: make it again"),
    ],
)
def test_a_mismatch_with_an_extractor(known, message):
    with pytest.raises(ValueError, match=message):
        FID(real=known, extractor=GridMeans())


def test_a_network_that_is_loaded_later_is_compared(monkeypatch):
    other = GridMeans()
    other.dims, other.protocol, other.identity = 64, "pytorch-fid", "other-means"
    monkeypatch.setattr("fastfid.batches.fid.make_extractor", lambda *_: other)
    fid = FID(real=gaussian(protocol="pytorch-fid", extractor="grid-means"), dims=64)
    assert fid.state_dict()["provenance"]["extractor"] == "grid-means"
    with pytest.raises(ValueError, match=r"real\.npz was made with extractor grid-means, .* has other-means: make"):
        fid.update(images(3, 3))


@pytest.mark.parametrize(
    ("name", "protocol", "said", "category"),
    [
        ("real.npz", "clean", "taken for clean; if it was made otherwise, use protocol='NAME'", FastfidWarning),
        ("x_clean_custom_na.npz", "clean", "is taken for clean: its name", FastfidWarning),
        ("x_clean_custom_na.npz", "pytorch-fid", "use protocol='clean'", SuspiciousInputWarning),
    ],
)
def test_statistics_without_a_protocol_are_said(name, protocol, said, category):
    with pytest.warns(category, match=re.escape(said)):
        FID(real=gaussian(name=name), dims=64, protocol=protocol)


def test_what_is_no_real_side(tmp_path):
    for wrong in (images(3, 1), 3, ["a.npz"]):
        with pytest.raises(TypeError, match=r"real: expected Statistics or the path of an \.npz of them, got"):
            FID(real=wrong)
    with pytest.raises(ValueError, match=r"real: .* is a folder; fit it once: fastfid stats .* -o real\.npz"):
        FID(real=tmp_path)
    with pytest.raises(FileNotFoundError):
        FID(real=tmp_path / "none.npz")
    np.savez(tmp_path / "images.npz", arr_0=images(3, 1))
    with pytest.raises(ValueError, match="no mu and no sigma in it"):
        FID(real=tmp_path / "images.npz")


def test_merge_of_the_same_fixed_side(tmp_path):
    known, fake = statistics(), images(45, 2)
    left, right = fixed(known.save(tmp_path / "real.npz"), fake[:20]), fixed(known, fake[20:])
    left.merge(right)
    assert (left.real.n, left.fake.n) == (60, 45)
    assert left.compute() == pytest.approx(compute_fid(known, fake, extractor=GridMeans()), rel=ANOTHER_ORDER)


def test_merge_of_other_real_sides_is_refused():
    left = fixed(fake=images(20, 2))
    for other in (fixed(statistics(5), images(9, 3)), fixed(statistics(1, 59))):
        with pytest.raises(ValueError, match="the fixed real side of this FID, array, and that of the other, array"):
            left.merge(other)
    with pytest.raises(ValueError, match="this FID has a fixed real side, the other has none: make both with the same"):
        left.merge(filled(images(3, 1), images(3, 2), 3))
    with pytest.raises(ValueError, match="the other has a fixed real side, this FID has none"):
        filled(images(3, 1), images(3, 2), 3).merge(left)
    assert left.fake.n == 20


def test_copies_and_pickles_carry_the_fixed_side():
    fid = fixed(fake=images(45, 2))
    for again in (pickle.loads(pickle.dumps(fid)), copy.deepcopy(fid), copy.copy(fid)):
        assert again.compute() == fid.compute()
        again.reset()
        assert again.real.n == 60


def test_a_state_carries_the_fixed_side():
    fid = fixed(fake=images(45, 2))
    state = fid.state_dict()
    for again in (FID(extractor=GridMeans()), fixed()):
        again.load_state_dict(state)
        assert again.compute() == fid.compute()
        np.testing.assert_array_equal(again.real.reservoir.rows, fid.real.reservoir.rows)
        with pytest.raises(ValueError, match="the real side is fixed"):
            again.update(images(3, 1), real=True)
    state["real"]["mu"][:] = 0  # the caller's own
    assert fid.real.mu.all()
    with pytest.raises(ValueError, match="the fixed real side of this FID, array, and that of the state, array"):
        fixed(statistics(5)).load_state_dict(fid.state_dict())
    with pytest.raises(ValueError, match="this FID has a fixed real side, the state has none"):
        fixed().load_state_dict(filled(images(3, 1), images(3, 2), 3).state_dict())
    only_fake = FID(extractor=GridMeans())
    only_fake.update(images(45, 2), real=False)
    again = fixed()
    again.load_state_dict(only_fake.state_dict())
    assert again.compute() == fid.compute()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"sigma": None}, TypeError, "real: sigma: expected real numbers"),
        ({"sigma": np.eye(3)}, ValueError, "real: sigma: expected shape"),
        ({"mu": np.full(12, np.nan)}, ValueError, "real: mu: has NaN"),
        ({"n": 1}, ValueError, "real: n: a covariance needs"),
        ({"n": None}, ValueError, r"real: state\['n'\]: is missing beside a sample of rows"),
        ({"reservoir_keys": 3}, TypeError, "real: reservoir_keys: expected a NumPy array, got int"),
        ({"n": "60"}, TypeError, "real: n: expected an integer"),
        ({"meta": 3}, TypeError, r"real: state\['meta'\]: expected a mapping, got int"),
        ({"meta": {"protocol": 3}}, TypeError, r"real: state\['meta'\]\['protocol'\]: expected a string"),
        ({"meta": {"protocol": "clean"}}, ValueError, "made with protocol none, the real side of the state with clean"),
        ({"name": 3}, TypeError, r"real: state\['name'\]: expected a string"),
        ({"rows": [1]}, TypeError, r"real: state\['rows'\]: expected an array of float32"),
        ({"rows": np.zeros((3, 12))}, ValueError, r"real: state\['rows'\]: expected finite values of shape \(60, 12\)"),
        ({"rows": np.zeros((60, 12))}, ValueError, r"real: state\['rows'\]: do not have the mean state\['mu'\]"),
        ({"mu": np.zeros(3), "sigma": np.eye(3)}, ValueError, r"real: reservoir_rows: expected shape \(60, 3\), got"),
    ],
)
def test_a_fixed_side_that_is_none(changes, error, message):
    state = fixed(fake=images(45, 2)).state_dict()
    fid = filled(images(20, 1), images(25, 2), 10)
    with pytest.raises(error, match=message):
        fid.load_state_dict({**state, "real": {**state["real"], **changes}})
    del state["real"]["sigma"]
    with pytest.raises(ValueError, match="real: state: the key 'sigma' is missing"):
        fid.load_state_dict(state)
    assert (fid.real.n, fid.fake.n) == (20, 25)


# Tensors


@pytest.mark.parametrize("real", [None, "fixed"])
def test_torch_saves_and_loads_a_state(real):
    fid = fixed(fake=images(45, 2)) if real else filled(images(60, 1), images(45, 2), 10)
    stream = io.BytesIO()
    torch.save({"epoch": 3, "fid": fid.state_dict()}, stream)
    stream.seek(0)
    stored = torch.load(stream)["fid"]  # weights_only=True, which refuses NumPy's arrays
    again = FID(extractor=GridMeans())
    again.load_state_dict(stored)
    assert again.compute() == fid.compute()
    assert {type(value) for part in stored.values() for value in part.values()} <= {torch.Tensor, int, str, dict}


def test_arrays_and_tensors_may_be_mixed():
    fid = filled(images(60, 1), images(45, 2), 10)
    state = fid.state_dict()
    for change in (
        lambda key, value: value.numpy(),
        lambda key, value: value if key == "scatter" else value.numpy(),
        lambda key, value: value.clone().requires_grad_() if value.is_floating_point() else value,
    ):
        changed = {
            side: {k: change(k, v) if isinstance(v, torch.Tensor) else v for k, v in part.items()}
            for side, part in state.items()
        }
        changed["fake"] |= {"n": torch.tensor(changed["fake"]["n"]), "d": np.int64(12)}
        again = FID(extractor=GridMeans())
        again.load_state_dict(changed)
        assert again.compute() == fid.compute()


def test_a_state_goes_through_npz(tmp_path):
    fid = filled(images(60, 1), images(45, 2), 10)
    state = fid.state_dict()
    flat = {f"{part}.{key}": value for part in state for key, value in state[part].items()}
    np.savez(tmp_path / "state.npz", **flat)
    with np.load(tmp_path / "state.npz") as stored:
        back = {p: {k: stored[f"{p}.{k}"] for k in state[p]} for p in state}
    again = FID(extractor=GridMeans())
    again.load_state_dict(back)
    assert again.compute() == fid.compute()


def test_without_torch_a_state_holds_arrays():
    code = """
import sys
sys.path.insert(0, "tests")
import numpy as np
from stubs import GridMeans
from fastfid import FID
fid = FID(extractor=GridMeans())
fid.update(np.zeros((3, 9, 11, 3), np.uint8), real=True)
state = fid.state_dict()
again = FID(extractor=GridMeans())
again.load_state_dict(state)
print("torch" in sys.modules, type(state["real"]["rows"]).__name__, again.real.n)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["False", "ndarray", "3"]


def test_a_tensor_that_numpy_cannot_hold_is_named():
    state = filled(images(20, 1), images(25, 2), 10).state_dict()
    for tensor in (torch.zeros(3, dtype=torch.bfloat16), torch.zeros(3, device="meta"), torch.eye(3).to_sparse()):
        state["fake"]["rows"] = tensor
        with pytest.raises(TypeError, match=r"state\['fake'\]\['rows'\]: expected a tensor that NumPy can hold"):
            FID(extractor=GridMeans()).load_state_dict(state)


def test_mappings_inside_a_state_are_converted_too(monkeypatch):
    rows, keys = np.ones((2, 3), np.float32), np.arange(2)
    state = as_tensors({"inner": {"rows": rows, "keys": keys}, "n": np.int64(2)})
    assert [type(x) for x in (*state["inner"].values(), state["n"])] == [torch.Tensor, torch.Tensor, int]
    back = as_arrays(state)["inner"]
    assert back["rows"].base is not None  # not copied
    for value, expected in ((back["rows"], rows), (back["keys"], keys)):
        assert value.dtype == expected.dtype
        np.testing.assert_array_equal(value, expected)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert as_tensors({"rows": rows})["rows"] is rows
    endless = {}
    endless["x"] = endless
    with pytest.raises(ValueError, match="mappings lie more than 8 deep in one another"):
        as_arrays(endless)


# The device


def test_to_keeps_what_was_accumulated(monkeypatch):
    """Images that wait in a batch of the old device, and rows that lie there, count."""
    made = []

    def make(dims, protocol, device, *_):
        extractor = (
            OnDevice(64, "none", 4) if device == "cuda:0" else fastfid.InceptionV3(64, protocol="none", device="cpu")
        )
        made.append(device)
        return extractor

    monkeypatch.setattr("fastfid.batches.fid.make_extractor", make)
    monkeypatch.setattr("fastfid.features.session.choose_device", lambda device: device)
    monkeypatch.setattr("fastfid._core.DeviceMoments", HostMoments)
    batches = [images(6, seed, size=(80, 80)) for seed in (1, 2, 3)]
    fid = FID(dims=64, protocol="none", device="cuda:0")
    for batch in batches[:2]:
        fid.update(Tensor(batch), real=False, stream=1)
    assert fid._feeds
    assert fid.to("cpu") is fid
    assert fid._feeds == {}
    fid.update(batches[2], real=False)
    assert fid.extractor.device == "cpu"
    assert fid.to("cpu").extractor.device == "cpu"
    assert made == ["cuda:0", "cpu"]
    plain = FID(dims=64, protocol="none", device="cpu")
    plain.update(np.concatenate(batches), real=False)
    assert fid.fake.n == 18
    np.testing.assert_allclose(fid.fake.mu, plain.fake.mu, rtol=FEATURES_EXACT, atol=0)


def test_to_a_device_that_cannot_be(monkeypatch):
    monkeypatch.setattr("fastfid._core.cuda_driver", lambda: (1, ""))
    fid = FID(dims=64, device="cuda:0", precision="tf32")
    for device in ("cuda:1", 7):
        with pytest.raises(BackendUnavailable, match="the driver has 1 CUDA device"):
            fid.to(device)
    with pytest.raises(ValueError, match="the CPU has 'float32' only, got 'tf32'"):
        fid.to("cpu")
    with pytest.raises(ValueError, match="device: expected 'auto'"):
        fid.to("gpu")
    assert fid._device == "cuda:0"
    assert fid.to(torch.device("cuda"))._device == "cuda:0"
    own = filled(images(20, 1), images(25, 2), 10)
    assert own.to("cpu") is own
    with pytest.raises(ValueError, match=r"device: the extractor is the caller's own and runs on cpu, not on cuda:0"):
        own.to("cuda:0")
    assert own.real.n == 20
