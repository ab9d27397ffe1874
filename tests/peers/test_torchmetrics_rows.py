"""KID, MIFID and Inception Score beside torchmetrics' own classes, on the same features and random numbers.

NOT_REPRODUCED, at the end, lists the behaviour of torchmetrics that is deliberately different, with the test that shows
the improvement.
"""

import copy
import importlib
import inspect
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from tolerances import (
    ANOTHER_NUMBER,
    KID_FLOAT32,
    PEERS_DISTANCE,
    PEERS_FID_BLOWN_UP,
    PEERS_KID,
    PRINTED_TO_4,
    SCORE_FLOAT32,
    U_FLOAT32,
)

from fastfid.errors import NumericalError
from fastfid.metrics import mifid

pytestmark = pytest.mark.filterwarnings(
    "ignore:Metric `(Kernel Inception Distance|InceptionScore)` will save all:UserWarning"
)
HOMES = {
    "KernelInceptionDistance": "kid",
    "MemorizationInformedFrechetInceptionDistance": "mifid",
    "InceptionScore": "inception",
}
KID, MIFID, SCORE = HOMES


@pytest.fixture(params=HOMES)
def name(request):
    return request.param


@pytest.fixture
def both(environment, name):
    return of(name)


@pytest.fixture
def classes(environment):
    """Both classes by name."""
    return of


def of(name):
    modules = f"torchmetrics.image.{HOMES[name]}", "fastfid.compat.torchmetrics"
    return tuple(getattr(importlib.import_module(module), name) for module in modules)


class Given(torch.nn.Module):
    """The features of "images" that are their numbers."""

    num_features = 16

    def forward(self, images):
        return images.flatten(1).float()


def rows(n, seed, shift=0.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 16, generator=generator, dtype=torch.float64).to(dtype) + shift


REAL, FAKE = rows(130, 1), rows(110, 2, 0.1)


def options(name, **changed):
    return {"feature": Given(), **({"subsets": 7, "subset_size": 50} if name == KID else {}), **changed}


def filled(metric, name, real=REAL, fake=FAKE, batch=40, **changed):
    made = metric(**options(name, **changed))
    for side, images in ((True, real), (False, fake)):
        for part in images.split(batch):
            if name != SCORE:
                made.update(part, real=side)
            elif not side:
                made.update(part)
    return made


def value(metric, seed=3):
    torch.manual_seed(seed)
    return metric.compute()


def assert_same(found, expected):
    """Of one type, dtype, shape and device, and as near as float32 allows; twice where there are two numbers."""
    assert type(found) is type(expected)
    pairs = zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]
    for ours, theirs in pairs:
        assert (ours.dtype, ours.shape, ours.device) == (theirs.dtype, theirs.shape, theirs.device)
        assert float(ours) == pytest.approx(float(theirs), rel=SCORE_FLOAT32, abs=KID_FLOAT32, nan_ok=True)


def test_signatures_and_attributes_are_the_same(both):
    added = {"feature_extractor_weights_path", "antialias"}
    for method in ("__init__", "update", "compute", "reset", "plot", "merge_state"):
        expected, found = (dict(inspect.signature(getattr(metric, method)).parameters) for metric in both)
        ours_alone = {key: found.pop(key) for key in added & set(found)}
        assert set(ours_alone) == (added if method == "__init__" else set())
        assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in ours_alone.values())
        assert [(p.name, p.default) for p in found.values()] == [(p.name, p.default) for p in expected.values()], method
    for attribute in (
        *("higher_is_better", "is_differentiable", "full_state_update", "feature_network"),
        *("plot_lower_bound", "plot_upper_bound"),
    ):
        assert getattr(both[0], attribute) == getattr(both[1], attribute), attribute


@pytest.mark.parametrize("seed", [3, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_of_the_same_draws(both, name, seed, dtype):
    class Typed(Given):
        def forward(self, images):
            return images.to(dtype)

    theirs, ours = (filled(metric, name, feature=Typed()) for metric in both)
    expected = value(theirs, seed), torch.rand(1)
    found = value(ours, seed), torch.rand(1)
    assert_same(found[0], expected[0])
    assert found[1] == expected[1]  # as many numbers were drawn
    assert list(ours.metric_state) == list(theirs.metric_state)
    for state, parts in theirs.metric_state.items():
        for part, other in zip(ours.metric_state[state], parts, strict=True):
            assert torch.equal(part, other)
            assert part.dtype == other.dtype


@pytest.mark.parametrize(
    "changed",
    [
        {"degree": 2},
        {"gamma": 0.5, "coef": 2.0},
        {"subsets": 1, "subset_size": 110},
        {"subset_size": 2, "subsets": 300},
    ],
)
def test_options_of_the_kid(classes, changed):
    theirs, ours = (filled(metric, KID, **changed) for metric in classes(KID))
    assert_same(value(ours), value(theirs))


@pytest.mark.parametrize("threshold", [1e-4, 0.1, 1.0])
@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_options_of_the_mifid(classes, threshold, shift):
    """Shifted rows are nearly parallel, so that their distances are below the threshold."""
    sides = {"real": REAL + shift, "fake": FAKE + shift}
    theirs, ours = (filled(metric, MIFID, **sides, cosine_distance_eps=threshold) for metric in classes(MIFID))
    found, expected = value(ours), value(theirs)
    assert found.dtype == expected.dtype == torch.float32
    assert float(found) == pytest.approx(float(expected), rel=U_FLOAT32 * 2)
    theirs, ours = (
        filled(metric, MIFID, **sides, feature=torch.nn.Identity(), cosine_distance_eps=threshold)
        for metric in classes(MIFID)
    )
    for metric in (theirs, ours):
        metric.orig_dtype = torch.float64
    assert float(value(ours)) == pytest.approx(float(value(theirs)), rel=PEERS_DISTANCE)


@pytest.mark.filterwarnings("ignore:.*degrees of freedom is <= 0:UserWarning")
@pytest.mark.parametrize("splits", [1, 2, 10, 90])
def test_options_of_the_inception_score(classes, splits):
    """One block has no standard deviation: NaN. Of 110 rows 90 blocks are 55."""
    theirs, ours = (filled(metric, SCORE, fake=9 * FAKE, splits=splits) for metric in classes(SCORE))
    assert_same(value(ours), value(theirs))


def test_reset_with_and_without_the_real_side(classes):
    for name in (KID, MIFID):
        for keep in (True, False):
            theirs, ours = (filled(metric, name, reset_real_features=not keep) for metric in classes(name))
            for metric in (theirs, ours):
                metric.reset()
                assert (len(metric.real_features), len(metric.fake_features)) == (4 if keep else 0, 0)
                for part in FAKE.split(30):
                    metric.update(part, real=False)
                if not keep:
                    metric.update(REAL, real=True)
            assert_same(value(ours), value(theirs))


def test_states_are_merged_and_exchanged(both, name):
    merged = []
    for metric in both:
        first, second = filled(metric, name, REAL[:60], FAKE[:60]), filled(metric, name, REAL[60:], FAKE[60:])
        for incoming in (second, second.metric_state):
            whole = copy.deepcopy(first)
            whole.merge_state(incoming)
            merged.append(value(whole))
    for found in merged[2:]:
        assert_same(found, merged[0])
    theirs, ours = (filled(metric, name) for metric in both)
    theirs.merge_state(ours.metric_state)
    ours.merge_state(filled(both[0], name).metric_state)
    assert_same(value(ours), value(theirs))


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_pickles_copies_and_state_dicts(both, name):
    values = []
    for metric in both:
        made = filled(metric, name)
        made.persistent(True)
        again = metric(**options(name))
        again.orig_dtype = torch.float32  # which torchmetrics' MIFID has from its first update on
        again.load_state_dict(made.state_dict(), strict=False)
        values.append([value(x) for x in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made), made.clone(), again)])
    for found, expected in zip(*values, strict=True):
        assert_same(found, expected)


def test_a_batch_alone(both, name):
    theirs, ours = (filled(metric, name, **({"subset_size": 30} if name == KID else {})) for metric in both)
    if name == SCORE:
        torch.manual_seed(5)
        expected = theirs(FAKE[:30])
        torch.manual_seed(5)
        assert_same(ours(FAKE[:30]), expected)
        assert_same(value(ours), value(theirs))
    else:
        sizes = [len(state) for state in ours.metric_state.values()]
        with pytest.raises(ValueError, match="No samples to concatenate"):
            ours(FAKE[:30], real=False)
        assert [len(state) for state in ours.metric_state.values()] == sizes


def test_collections_and_moves(both, name):
    from torchmetrics import MetricCollection

    theirs, ours = both
    collection = MetricCollection({"theirs": theirs(**options(name)), "ours": ours(**options(name))})
    for part in FAKE.split(40):  # from the second on, metrics of equal states share them
        if name == SCORE:
            collection.update(part)
        else:
            collection.update(part + 1, real=True)
            collection.update(part, real=False)
    if name == MIFID:
        values = collection.compute()
        assert_same(values["ours"], values["theirs"])
    for metric in both:
        made = filled(metric, name).to("meta")
        assert {part.device.type for state in made.metric_state.values() for part in state} == {"meta"}


def test_plots(both, name):
    import matplotlib

    matplotlib.use("Agg")
    for metric in both:
        made = filled(metric, name)
        shown = value(made) if name == MIFID else value(made)[0]
        for values in ([shown, shown], shown):
            figure, axes = made.plot(values)
            assert axes in figure.axes
    if name == SCORE:
        figure, axes = made.plot()
        assert axes in figure.axes


EXCEPTIONS = {
    "feature": lambda metric, name: metric(feature=100),
    "feature of another type": lambda metric, name: metric(feature=[1]),
    "a name": lambda metric, name: metric(feature="logits"),
    "normalize": lambda metric, name: metric(**options(name, normalize="yes")),
    "reset_real_features": lambda metric, name: metric(**options(name, reset_real_features=1)),
    "subsets": lambda metric, name: metric(**options(name, subsets=0)),
    "subset_size": lambda metric, name: metric(**options(name, subset_size=2.5)),
    "degree": lambda metric, name: metric(**options(name, degree=-1)),
    "gamma": lambda metric, name: metric(**options(name, gamma=1)),
    "coef": lambda metric, name: metric(**options(name, coef=0.0)),
    "cosine_distance_eps": lambda metric, name: metric(**options(name, cosine_distance_eps=1.5)),
    "unknown keyword": lambda metric, name: metric(**options(name, no_such_keyword=1)),
    "no image": lambda metric, name: metric(**options(name)).compute(),
    "merged with a number": lambda metric, name: metric(**options(name)).merge_state(3),
    "too few images": lambda metric, name: filled(metric, KID if name == KID else name, FAKE[:9], FAKE[:9]).compute(),
}


@pytest.mark.parametrize("case", EXCEPTIONS)
@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_exceptions_and_texts_are_the_same(both, name, case):
    errors = []
    for metric in both:
        try:
            EXCEPTIONS[case](metric, name)
            errors.append(None)
        except Exception as error:  # which one is what is asked
            errors.append((type(error), str(error)))
    assert errors[1] == errors[0]


# The network.


@pytest.fixture(scope="module")
def tensors(many):
    """24 small photographs a side."""
    return [
        torch.from_numpy(np.stack([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())[:24]]))
        .permute(0, 3, 1, 2)
        .contiguous()
        for folder in many
    ]


@pytest.mark.parametrize("normalize", [True, False])
def test_the_built_in_network(classes, tensors, normalize):
    real, fake = (images / 255 for images in tensors) if normalize else tensors
    values = []
    for metric in classes(KID):
        kid = metric(feature=64, subsets=2, subset_size=20, normalize=normalize)
        kid.update(real, real=True)
        kid.update(fake, real=False)
        values.append(value(kid))
    products = torch.cat(kid.real_features) @ torch.cat(kid.fake_features).T
    scale = float(((products / 64 + 1) ** 3).mean())  # of the kernel
    for found, expected in zip(values[1], values[0], strict=True):
        assert float(found) == pytest.approx(float(expected), rel=PEERS_KID, abs=KID_FLOAT32 * scale)
    assert values[0][0] > values[0][1] > 0
    values = []
    for metric in classes(MIFID):
        mifid = metric(feature=64, normalize=normalize)
        mifid.update(real, real=True)
        mifid.update(fake, real=False)
        values.append(float(value(mifid)))
    assert values[1] == pytest.approx(values[0], rel=PEERS_FID_BLOWN_UP, abs=PEERS_FID_BLOWN_UP)


@pytest.mark.parametrize(
    ("name", "changed", "printed"),
    [(KID, {"subset_size": 50}, [0.0312, 0.0025]), (MIFID, {"feature": 64}, [3003.3691])],
)
def test_the_numbers_of_the_docstrings(classes, name, changed, printed):
    """Printed to four decimals by torchmetrics 1.9. Its doctests begin with this seed, and its network draws first."""
    theirs, ours = classes(name)
    metric = ours(**changed)
    torch.manual_seed(42)
    theirs(**changed)
    for low, high, real in ((0, 200, True), (100, 255, False)):
        metric.update(torch.randint(low, high, (100, 3, 299, 299), dtype=torch.uint8), real=real)
    found = metric.compute()
    for number, expected in zip(found if isinstance(found, tuple) else [found], printed, strict=True):
        assert float(number) == pytest.approx(expected, rel=PEERS_FID_BLOWN_UP, abs=PRINTED_TO_4)


# What is not reproduced.


def test_better_a_batch_that_fails_loses_nothing(classes):
    for name in (KID, MIFID):
        made = [filled(metric, name) for metric in classes(name)]
        for metric in made:
            with pytest.raises(ValueError, match="No samples to concatenate"):
                metric(FAKE, real=False)
        assert [len(metric.fake_features) for metric in made] == [1, 3]  # theirs has forgotten the others


def test_better_features_that_are_not_finite_are_refused(both, name):
    broken = FAKE.clone()
    broken[5, 2] = torch.nan
    given = value(filled(both[0], name, fake=broken))
    # A MIFID of 0, which is that of equal sets.
    assert given == 0 if name == MIFID else all(number.isnan() for number in given)
    with pytest.raises(NumericalError, match="features: row 5 of the batch has NaN"):
        filled(both[1], name, fake=broken)


def test_better_rows_whose_sum_is_zero_count(classes):
    """torchmetrics leaves them out of the cosines, as if they were 0."""
    theirs, ours = classes(MIFID)
    halves = torch.arange(40.0).view(5, 8) ** 2
    sums_of_zero = torch.cat([halves, -halves], dim=1)
    sides = {
        "real": torch.cat([REAL, sums_of_zero]),
        "fake": torch.cat([FAKE, sums_of_zero]),
        "cosine_distance_eps": 1.0,
    }
    expected, found = (float(value(filled(metric, MIFID, **sides))) for metric in (theirs, ours))
    assert found == pytest.approx(
        mifid(sides["real"].numpy(), sides["fake"].numpy(), threshold=1.0).value, rel=U_FLOAT32
    )
    assert found != pytest.approx(expected, rel=ANOTHER_NUMBER)


def test_better_a_network_that_is_not_there_is_looked_for_late(both, name, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("FASTFID_WEIGHTS", str(tmp_path / "missing"))
    with pytest.raises(OSError, match=r".+"):
        both[0]()
    assert both[1]().inception.protocol == "torchmetrics"
    assert both[1](antialias=False).inception.protocol == "tensorflow"


NOT_REPRODUCED = {
    "forward of one side loses the states": test_better_a_batch_that_fails_loses_nothing,
    "features that are not finite give NaN, or a MIFID of 0": test_better_features_that_are_not_finite_are_refused,
    "features whose sum is 0 have no cosines": test_better_rows_whose_sum_is_zero_count,
    "construction loads the network, warns, and needs torch-fidelity": (
        test_better_a_network_that_is_not_there_is_looked_for_late
    ),
}


def test_the_table_of_what_is_not_reproduced_is_whole():
    named = {name for name in globals() if name.startswith("test_better_")}
    assert named == {test.__name__ for test in NOT_REPRODUCED.values()}
