"""Tests of every metric of the table. The rows of tests/metric_cases.py contain the reference values."""

import dataclasses
import json
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from metric_cases import METRIC_CASES
from PIL import Image
from stubs import AllOutputs, GridMeans
from tolerances import ANOTHER_ORDER, SPREAD_OF_200

from fastfid import FID, Statistics, _core, compute_fid, compute_statistics, evaluate, frechet_distance
from fastfid.cli import main
from fastfid.errors import FastfidWarning, NumericalError
from fastfid.metrics import _FUNCTIONS, METRICS, kernel, kid, label_of, logits, make_metrics, nearest, prdc
from fastfid.metrics.base import Result, Sample
from fastfid.metrics.fid import FrechetInceptionDistance
from fastfid.metrics.rows import FeatureRows, KeptRows
from fastfid.options import SourceOptions
from fastfid.sources.picture import DEFAULT_MAX_PIXELS

ROOT = Path(__file__).resolve().parents[1]
NAMES = sorted(METRICS)
VALUES = [value for name in NAMES for value in METRICS[name].labels]
LENGTHS = {"features": 12, "spatial": 12}


def features(n, seed, shift=0.0):
    rng = np.random.default_rng((seed, n))
    return (rng.standard_normal((n, 12)) @ rng.uniform(-1, 1, (12, 12)) + shift).astype(np.float32)


def outputs(rows):
    return {"features": rows, "spatial": rows}


def accumulated(metric, rows, splits=1):
    accumulator = metric.accumulator(LENGTHS)
    for part in np.array_split(rows, splits):
        batch = part.copy()
        accumulator.update(outputs(batch))
        batch[...] = np.nan  # the pipeline overwrites it
    return accumulator


def results_of(metric, a, b):
    """Return the results of a metric by name."""
    real, fake = (
        Sample(
            name, {}, rows if not isinstance(rows, np.ndarray) else accumulated(metric, rows), AllOutputs().classifier
        )
        for name, rows in (("a", a), ("b", b))
    )
    found = metric.result(real, fake)
    return {metric.name: found} if isinstance(found, Result) else found


def features_of(images):
    return np.stack([GridMeans().prepare(image) for image in images])


def values_of(metric, a, b):
    return {name: result.value for name, result in results_of(metric, a, b).items()}


@pytest.fixture(params=NAMES)
def metric(request):
    return METRICS[request.param].make()


def test_every_metric_has_a_case():
    assert sorted(METRIC_CASES) == NAMES


def test_the_docs_have_the_table():
    page, _, functions = (ROOT / "docs" / "metrics.md").read_text().partition("## Functions on features")
    table = page.partition("| name | metric |")[2].partition("\n\n")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert [line.split(" | ")[:2] for line in rows] == [[f"| `{row.name}`", row.title] for row in METRICS.values()]
    of_each = page.partition("## What each says")[2].partition("\n\n**KID**")[0]
    assert set(re.findall(r"^\| `([\w-]+)` ", of_each, re.MULTILINE)) == set(METRICS)
    assert set(re.findall(r"^\| `(\w+)\(", functions, re.MULTILINE)) == set(_FUNCTIONS)


@pytest.mark.parametrize("sizes", [(40, 50), (300, 200)])
def test_the_value_is_the_truth(metric, sizes):
    case = METRIC_CASES[metric.name]
    a, b = features(sizes[0], 1), features(sizes[1], 2, 0.3)
    truth = case.truth(a.astype(float), b.astype(float))
    truths = truth if isinstance(truth, dict) else {metric.name: truth}
    found = results_of(metric, a, b)
    assert list(found) == list(truths) == list(METRICS[metric.name].labels)
    for name, result in found.items():
        assert result.value == pytest.approx(truths[name], rel=case.relative)
        if result.numerical_lower is not None:
            assert result.numerical_lower <= result.value <= result.numerical_upper


def test_the_order_of_the_sets(metric):
    a, b = features(60, 1), features(50, 2, 0.3)
    there, back = values_of(metric, a, b), values_of(metric, b, a)
    assert (there == pytest.approx(back, rel=ANOTHER_ORDER)) == METRIC_CASES[metric.name].is_symmetric


def test_the_order_of_the_rows(metric):
    """Nothing but the blocks of the Inception Score depends on it."""
    a, b = features(60, 1), features(50, 2, 0.3)
    shuffled = (np.random.default_rng(3).permutation(rows) for rows in (a, b))
    same = values_of(metric, *shuffled) == pytest.approx(values_of(metric, a, b), rel=ANOTHER_ORDER)
    assert same == (metric.name != "is")


def test_no_split_into_batches_changes_a_bit(metric):
    a, b = features(60, 1), features(50, 2, 0.3)
    whole = results_of(metric, a, b)
    for splits in (2, 7, 60):
        assert results_of(metric, accumulated(metric, a, splits), accumulated(metric, b, min(splits, 50))) == whole


def test_parts_can_be_merged(metric):
    a, b = features(60, 1), features(50, 2, 0.3)
    parts = [accumulated(metric, part) for part in np.split(a, [5, 30])]
    for part in parts[1:]:
        parts[0].merge(part)
    assert parts[0].n == 60
    assert values_of(metric, parts[0], b) == pytest.approx(values_of(metric, a, b), rel=ANOTHER_ORDER)


def test_a_state_goes_on_where_it_was(metric):
    a, b = features(60, 1), features(50, 2, 0.3)
    whole = results_of(metric, a, b)
    first = accumulated(metric, a[:31])
    state = first.state()
    first.update(outputs(a[:3].copy()))  # a state is a copy
    again = metric.restored(state)
    assert again.n == 31
    again.update(outputs(a[31:].copy()))
    assert results_of(metric, again, b) == whole


@pytest.mark.parametrize("state", [{}, {"n": -1}, {"rows": None, "n": 2}])
def test_what_is_no_state(metric, state):
    with pytest.raises((TypeError, ValueError)):
        metric.restored(state)


def test_what_is_forgotten_counts_no_more(metric):
    a, b = features(60, 1), features(50, 2, 0.3)
    accumulator = accumulated(metric, features(9, 3))
    accumulator.reset()
    assert accumulator.n == 0
    accumulator.update(outputs(a.copy()))
    assert values_of(metric, accumulator, b) == values_of(metric, a, b)


def test_too_few_images_are_an_error_that_names_the_set(metric):
    case = METRIC_CASES[metric.name]
    results_of(metric, features(case.fewest, 1), features(case.fewest, 2))
    if not case.of_generated:
        with pytest.raises(ValueError, match=r"^a: "):
            results_of(metric, features(case.fewest - 1, 1), features(50, 2))
    with pytest.raises(ValueError, match=r"^b: "):
        results_of(metric, features(50, 2), features(case.fewest - 1, 1))


@pytest.mark.parametrize("name", ["vendi", "cmmd"])
def test_features_without_a_direction_name_the_set(name):
    rows = features(9, 2)
    rows[3] = 0
    with pytest.raises(ValueError, match=r"^b: row 3 is 0, which has no direction"):
        results_of(METRICS[name].make(), features(9, 1), rows)


def test_rows_of_another_length_are_refused(metric):
    with pytest.raises(ValueError, match="12"):
        metric.accumulator(LENGTHS).update(outputs(np.zeros((3, 11), np.float32)))


def test_a_result_is_frozen_and_plain(metric):
    for result in results_of(metric, features(60, 1), features(50, 2)).values():
        with pytest.raises(dataclasses.FrozenInstanceError):
            result.value = 0.0
        record = json.loads(json.dumps(result.to_dict(), allow_nan=False))
        assert record["value"] == result.value
        assert {"numerical_lower", "numerical_upper", "standard_error", "note", *result.details} < set(record)


def test_a_standard_error_is_the_spread_of_the_values(metric):
    """Of 200 pairs of sets, each drawn anew; where there is a standard error without asking."""
    mixed = np.random.default_rng(7).uniform(-1, 1, (2, 12, 12))

    def drawn(n, seed, mix, shift=0.0):
        return (np.random.default_rng((seed, n)).standard_normal((n, 12)) @ mix + shift).astype(np.float32)

    def draw(k):
        (result,) = list(results_of(metric, drawn(80, 2 * k, mixed[0]), drawn(100, 2 * k + 1, mixed[1], 0.3)).values())[
            :1
        ]
        return result

    if not METRIC_CASES[metric.name].has_standard_error:
        assert draw(0).standard_error is None
        return
    draws = [draw(k) for k in range(200)]
    spread = np.std([draw.value for draw in draws], ddof=1)
    assert np.mean([draw.standard_error for draw in draws]) == pytest.approx(spread, rel=SPREAD_OF_200)


# ----------------------------------------------------------------------------------------------------------- evaluate


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [rng.integers(0, high, (n, 9, 11, 3), dtype=np.uint8) for n, high in ((30, 256), (25, 200))]


def test_metrics_of_the_spatial_features_alone(pictures, weights):
    alone = evaluate(pictures[0][:4], pictures[1][:3], metrics=["sfid"], device="cpu")["sfid"]
    assert alone == evaluate(pictures[0][:4], pictures[1][:3], metrics=["fid", "sfid"], device="cpu")["sfid"]


def test_one_pass_for_all_metrics(pictures):
    class Counting(AllOutputs):
        seen = 0

        def forward(self, batch):
            self.seen += len(batch)
            return super().forward(batch)

    extractor = Counting()
    together = evaluate(*pictures, metrics=NAMES, extractor=extractor)
    assert extractor.seen == 55
    assert list(together) == VALUES
    assert len(together) == len(VALUES)
    for name in NAMES:
        alone = evaluate(*pictures, metrics=(name,), extractor=AllOutputs())
        assert dict(alone) == {value: together[value] for value in METRICS[name].labels}
    assert "real='array" in repr(together)


def test_metrics_of_rows_share_them(pictures):
    class Spy(FeatureRows):
        made = 0

        def __init__(self, *args, **options):
            Spy.made += 1
            super().__init__(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastfid.metrics.rows.FeatureRows", Spy)
        evaluate(*pictures, metrics=["kid", "prdc", "kid:clean-fid"], extractor=GridMeans())
    assert Spy.made == 2  # one for each set


def test_all_metrics_that_can_be_computed(pictures):
    every = evaluate(*pictures, metrics="all", extractor=AllOutputs())
    assert (list(every), every.missing) == ([value for row in METRICS.values() for value in row.labels], {})
    some = evaluate(*pictures, metrics="all", extractor=GridMeans())
    assert {name: list(METRICS[name].labels) for name in some.missing} == {"sfid": ["sfid"], "is": ["is"]}
    assert some.missing["sfid"] == "needs the output spatial; the extractor gives features at 12 dims"
    assert "GridMeans has no classifier" in some.missing["is"]
    with pytest.raises(KeyError, match="sfid could not be computed: needs the output"):
        some["sfid"]
    rows = {row["metric"]: row for row in some.to_dict()["metrics"]}
    assert (rows["sfid"]["value"], rows["sfid"]["note"]) == (None, some.missing["sfid"])
    assert set(rows) == set(every)
    few = evaluate(pictures[0][:5], pictures[1], metrics="all", extractor=AllOutputs())
    assert few.missing["prdc"] == "array: prdc with k = 5 needs at least 6 images, got 5"
    assert set(few.missing) == {"prdc", "fid-infinity"}
    statistics = Statistics(np.zeros(12), np.eye(12), n=100, meta={"protocol": "none"}, name="file")
    of_file = evaluate(statistics, pictures[1], metrics="all", extractor=GridMeans(), force=True)
    assert set(of_file) == {name for name in NAMES if METRICS[name].make().is_of_statistics} - {"sfid"}
    assert "file holds statistics only" in of_file.missing["kid"]
    assert "file holds no statistics of the spatial features" in of_file.missing["sfid"]
    assert "has no classifier" in of_file.missing["is"]
    with pytest.raises(ValueError, match="sfid: needs the output spatial"):
        evaluate(*pictures, metrics=["fid", "sfid"], extractor=GridMeans())


def test_conventions_of_tools(pictures):
    found = evaluate(*pictures, metrics=["kid", "kid:clean-fid", "prdc:adm"], extractor=GridMeans())
    assert list(found) == ["kid", "kid:clean-fid", *(f"{x}:adm" for x in METRICS["prdc"].labels)]
    rows = [accumulated(METRICS["kid"].make(), features_of(side)).rows() for side in pictures]
    assert found["kid:clean-fid"].value == kid(*rows[::-1], protocol="clean-fid", seed=0).value
    assert found["recall:adm"].value == prdc(*rows, protocol="adm").recall
    record = found.to_dict()["metrics"]
    assert [(row["metric"], row["convention"]) for row in record[:3]] == [
        ("kid", None),
        ("kid", "clean-fid"),
        ("precision", "adm"),
    ]
    assert [label_of(name) for name in list(found)[:3]] == ["KID", "KID (clean-fid)", "Precision (adm)"]
    for row in METRICS.values():
        for convention in row.conventions:
            assert row.make(convention).key == f"{row.name}:{convention}"
    assert METRICS["kid"].conventions == tuple(kernel._CONVENTIONS)[1:]
    assert set(METRICS["is"].conventions) == set(logits._CONVENTIONS) - {None}
    assert METRICS["prdc"].conventions == tuple(nearest.PRDC_PROTOCOLS)


def test_the_record_of_an_evaluation(pictures):
    evaluation = evaluate(*pictures, metrics=NAMES, extractor=AllOutputs())
    record = evaluation.to_dict()
    assert json.loads(json.dumps(record, allow_nan=False)) == record  # plain types only
    assert [row["metric"] for row in record["metrics"]] == VALUES
    assert [row["value"] for row in record["metrics"]] == [evaluation[name].value for name in VALUES]
    assert {row["extractor"] for row in record["metrics"]} == {"grid-means"}
    assert {(row["n_real"], row["n_generated"]) for row in record["metrics"]} == {(30, 25)}
    assert (record["n"], record["dims"], record["device"]) == ({"real": 30, "fake": 25}, 12, "cpu")
    assert (record["schema"], record["command"]) == (2, None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", record["date"])
    assert evaluation.to_dict(command=["a", "b"]) == {**record, "command": ["a", "b"]}


def test_the_first_metric_gives_the_value_of_the_record(pictures):
    first, again = (evaluate(*pictures, metrics=names, extractor=GridMeans()) for names in (["kid", "fid"], ["fid"]))
    record, of_fid = first.to_dict(), again.to_dict()
    assert record["value"] == record["metrics"][0]["value"] == first["kid"].value
    assert record["standard_error"] == first["kid"].standard_error
    assert record["numerical_lower"] is None
    assert record["fid"] == record["metrics"][1]["value"] == of_fid["fid"] == of_fid["value"]
    for key, value in of_fid["metrics"][0]["details"].items():
        assert record[key] == record["metrics"][1]["details"][key] == of_fid[key] == value
    assert record["metrics"][0]["details"] == {}
    alone = evaluate(*pictures, metrics=["kid"], extractor=GridMeans()).to_dict()
    assert set(record) - set(alone) == {"fid", "bias_meaning", *of_fid["metrics"][0]["details"]}


def test_one_record_for_all_who_ask(pictures):
    timed = ("seconds", "date")
    of_fid = compute_fid(*pictures, extractor=GridMeans(), return_info=True)
    of_evaluation = evaluate(*pictures, extractor=GridMeans()).to_dict()
    assert {k: v for k, v in of_fid.items() if k not in timed} == {
        k: v for k, v in of_evaluation.items() if k not in timed
    }
    sides = [Statistics(np.full(12, mean), np.eye(12), 40, {"protocol": "none"}) for mean in (0.0, 1.0)]
    of_distance = frechet_distance(*sides, return_info=True)
    assert of_distance.items() <= compute_fid(*sides, return_info=True).items()


def test_a_record_has_the_options_that_were_in_effect(pictures):
    record = compute_fid(
        *pictures,
        extractor=GridMeans(),
        tol=1e-7,
        num=np.int64(20),
        seed=3,
        value_range=(0, 1),
        force=True,
        return_info=True,
    )
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert (record["num"], record["seed"], record["n"]) == (20, 3, {"real": 20, "fake": 20})
    options = record["options"]
    assert (options["tol"], options["force"], options["value_range"]) == (1e-7, True, [0, 1])
    assert (options["recursive"], options["max_pixels"], options["on_error"]) == (False, DEFAULT_MAX_PIXELS, "raise")
    assert set(options) - {"on_error", "force", "tol"} == set(SourceOptions.__annotations__) - {"num", "seed"}


@pytest.mark.parametrize(
    ("real", "fake", "expected"), [("a", "a", "a"), (None, "a", "a"), ("a", "b", None), (None, None, None)]
)
def test_the_extractor_of_a_row(real, fake, expected):
    sides = [
        Statistics(np.zeros(3), np.eye(3), 9, {"protocol": "none"} | ({"extractor": of} if of else {}))
        for of in (real, fake)
    ]
    assert evaluate(*sides, force=True).to_dict()["metrics"][0]["extractor"] == expected


def test_why_there_is_no_standard_error(pictures):
    images = pictures[0]
    reasons = {
        "not asked for": evaluate(
            *pictures, metrics=[FrechetInceptionDistance(needs_standard_error=False)], extractor=GridMeans()
        ),
        "fewer than 4 images": evaluate(images[:3], images[3:9], metrics=["kid"], extractor=GridMeans()),
        "n = 9 <= d = 12": evaluate(images, pictures[1][:9], extractor=GridMeans()),
    }
    for reason, evaluation in reasons.items():
        record = evaluation.to_dict()
        assert record["standard_error"] is None
        assert reason in record["no_standard_error"]
        assert record["metrics"][0]["no_standard_error"] == record["no_standard_error"]
    record = evaluate(*pictures, extractor=GridMeans()).to_dict()
    assert record["standard_error"] > 0
    assert 0 < record["relative_error_of_standard_error"] < 1
    assert record["no_standard_error"] is None


def test_the_fid_is_compute_fids(pictures):
    found = evaluate(*pictures, extractor=GridMeans())["fid"]
    record = compute_fid(*pictures, extractor=GridMeans(), return_info=True)
    assert (found.value, found.numerical_lower) == (record["fid"], record["numerical_lower"])


def test_options_of_a_metric(pictures):
    metric = FrechetInceptionDistance(needs_standard_error=False)
    found = evaluate(*pictures, metrics=(metric,), extractor=GridMeans())["fid"]
    assert (found.standard_error, found.no_standard_error) == (None, "it was not asked for")
    assert evaluate(*pictures, extractor=GridMeans())["fid"].standard_error > 0


def test_details_that_json_has_no_number_for(pictures):
    class Detailed(FrechetInceptionDistance):
        def result(self, real, fake):
            return Result(1.0, details={"numbers": [np.inf, np.float32(2), float("nan")]})

    record = evaluate(*pictures, metrics=[Detailed()], extractor=GridMeans()).to_dict()
    assert record["metrics"][0]["details"] == {"numbers": [None, 2.0, None]}
    json.dumps(record, allow_nan=False)


def test_statistics_serve_metrics_that_need_no_more(pictures):
    extractor = GridMeans()
    statistics = Statistics(np.zeros(12), np.eye(12), n=100, name="file")
    for name in NAMES:
        if METRICS[name].make().is_of_statistics and name != "sfid":
            with pytest.warns(FastfidWarning, match="file does not say its protocol"):
                assert evaluate(statistics, pictures[1], metrics=(name,), extractor=extractor)[name].value > 0
        else:
            known = statistics if name != "is" else pictures[1]  # of the generated set alone
            says = "holds no statistics of the spatial features" if name == "sfid" else "needs the images of"
            with pytest.raises(ValueError, match=f"^{name}: .*{says}"):
                evaluate(known, statistics, metrics=(name,), extractor=AllOutputs())


@pytest.mark.parametrize(
    ("metrics", "text"),
    [
        (("fud",), "metrics: expected names among fid.*; got 'fud'"),
        (("fid", "fid"), "metrics: fid comes twice"),
        ((), "metrics: expected at least one of fid"),
        ("fid", r"metrics: expected a list of names, such as \['fid'\], or 'all'; got 'fid'"),
        ("fid,kid", r"metrics: expected a list of names, such as \['fid', 'kid'\], or 'all'; got 'fid,kid'"),
        (("kid:kid",), "metrics: kid: expected a convention among torch-fidelity.*; got 'kid:kid'"),
        (("fid:adm",), "metrics: fid: expected no convention; got 'fid:adm'"),
    ],
)
def test_metrics_that_are_none(pictures, metrics, text):
    with pytest.raises(ValueError, match=text):
        evaluate(*pictures, metrics=metrics, extractor=GridMeans())


def test_an_output_that_the_extractor_lacks(pictures):
    class Spatial(FrechetInceptionDistance):
        name = "sfid"
        needs = frozenset({"spatial"})

    with pytest.raises(ValueError, match="sfid: needs the output spatial; the extractor gives features"):
        evaluate(*pictures, metrics=(Spatial(),), extractor=GridMeans())


def test_outputs_that_are_no_set_of_names(pictures):
    class Wrong(FrechetInceptionDistance):
        needs = "spatial"

    with pytest.raises(TypeError, match=r"metrics: fid\.needs: expected a set of names of outputs, got 'spatial'"):
        evaluate(*pictures, metrics=[Wrong()], extractor=GridMeans())


def test_a_set_without_a_classifier_has_no_inception_score():
    kept = FeatureRows(2)
    kept.update({"features": np.eye(2, dtype=np.float32)})
    side = Sample("x.store", {}, kept)
    with pytest.raises(ValueError, match=r"x\.store: no classifier of the network is known, which the Inception Score"):
        logits.InceptionScoreMetric().result(side, side)


def test_kept_rows_have_no_value():
    side = Sample("x", {}, FeatureRows(2))
    with pytest.raises(TypeError, match="rows: is no metric"):
        KeptRows().result(side, side)


class TwoOutputs(GridMeans):
    """An extractor with a second output, the first 5 of the features."""

    outputs = {"features": 12, "first": 5}  # noqa: RUF012
    forgets = False

    def forward(self, batch):
        rows = super().forward(batch)
        return {"features": rows} if self.forgets else {"features": rows, "first": rows[:, :5]}


def test_outputs_of_an_extractor_go_to_who_needs_them(pictures):
    seen = {}

    class First(FrechetInceptionDistance):
        name = "first"
        needs = frozenset({"first"})

        def accumulator(self, lengths):
            moments = super().accumulator(lengths)
            seen[len(seen)] = moments
            return moments

    both = evaluate(*pictures, metrics=("fid", First()), extractor=TwoOutputs())
    assert both["fid"] == evaluate(*pictures, extractor=GridMeans())["fid"]
    rows = [np.concatenate([GridMeans().forward(GridMeans().prepare(p)[None]) for p in side]) for side in pictures]
    expected = _core.Moments(5)
    expected.update(np.ascontiguousarray(rows[0][:, :5]))
    np.testing.assert_array_equal(seen[0].total().mean, expected.mean)

    extractor = TwoOutputs()
    extractor.forgets = True
    with pytest.raises(ValueError, match=r"TwoOutputs\.forward: the outputs first are missing"):
        evaluate(*pictures, extractor=extractor)


class OfFirst(FrechetInceptionDistance):
    """The FID's formula on another output than the features."""

    name = "first"
    needs = frozenset({"first"})


def test_the_cache_and_statistics_are_of_the_features(tmp_path, monkeypatch, pictures):
    """Statistics of another output are never used as statistics of the features, or vice versa."""
    monkeypatch.setenv("FASTFID_CACHE", str(tmp_path / "cache"))
    folders = []
    for name, side in zip("ab", pictures, strict=True):
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        for i, picture in enumerate(side):
            path = folders[-1] / f"{i:02}.png"
            Image.fromarray(picture).save(path)
            os.utime(path, (1, 1))
    monkeypatch.setattr("fastfid.cache._CLOCK_S", -1e9)  # files of just now may be kept
    truth = evaluate(*folders, metrics=("fid", OfFirst()), extractor=TwoOutputs())
    assert truth["first"].value != truth["fid"].value
    with pytest.warns(FastfidWarning, match="not kept in the cache: no metric makes statistics"):
        assert evaluate(*folders, metrics=(OfFirst(),), extractor=TwoOutputs(), cache=True)["first"] == truth["first"]
    for _ in range(2):
        found = evaluate(*folders, metrics=("fid", OfFirst()), extractor=TwoOutputs(), cache=True)
        assert [found[name] for name in truth] == [truth[name] for name in truth]
    kept = evaluate(*folders, extractor=TwoOutputs(), cache=True)
    assert kept.cached == {"real": True, "fake": True}
    assert kept["fid"].value == pytest.approx(truth["fid"].value, rel=ANOTHER_ORDER)
    statistics = Statistics(np.zeros(12), np.eye(12), n=100, name="file")
    with pytest.raises(ValueError, match="first: needs the images of both sides; file holds statistics only"):
        evaluate(statistics, folders[1], metrics=(OfFirst(),), extractor=TwoOutputs())


@pytest.mark.parametrize(
    ("outputs", "kind", "text"),
    [
        (["features"], TypeError, r"Old\.outputs: expected a dict of names and positive lengths, got \['features'\]"),
        ({"features": 0}, TypeError, "expected a dict of names and positive lengths"),
        ({"features": 11}, ValueError, "expected 'features' of dims = 12, got {'features': 11}"),
        ({"logits": 3}, ValueError, "expected 'features' of dims = 12"),
    ],
)
def test_outputs_that_are_none(pictures, outputs, kind, text):
    class Old(GridMeans):
        def __init__(self):
            super().__init__()
            self.outputs = outputs

    for call in (lambda: evaluate(*pictures, extractor=Old()), lambda: FID(extractor=Old())):
        with pytest.raises(kind, match=text):
            call()


def test_features_that_are_no_numpy_array(pictures):
    class Listed(GridMeans):
        def forward(self, batch):
            return super().forward(batch).tolist()

    with pytest.raises(TypeError, match=r"Listed\.forward: expected features as a NumPy array, got list"):
        evaluate(*pictures, extractor=Listed())


@pytest.mark.parametrize("name", NAMES)
def test_features_that_are_not_finite_name_the_set(pictures, name):
    class Failing(AllOutputs):
        batch_size = 4

        def forward(self, batch):
            rows = GridMeans.forward(self, batch)
            rows[rows[:, 0] > 200] = np.nan
            return outputs(rows)

    white = np.concatenate([pictures[1][:6], np.full((2, 9, 11, 3), 255, np.uint8)])
    with pytest.raises(NumericalError, match=rf"^array: {name}: images from number 4 on, counted from 0: .*NaN"):
        evaluate(pictures[1][:9], white, metrics=(name,), extractor=Failing())


@pytest.mark.parametrize(
    ("metrics", "text"),
    [
        ([FrechetInceptionDistance], "metrics: expected names or objects of fastfid.metrics.base.Metric, got <class"),
        ([3], "got 3"),
        (None, "metrics: expected a list of names or metrics, got None"),
        (FrechetInceptionDistance(), "metrics: expected a list of names or metrics, got Frechet"),
    ],
)
def test_what_is_no_metric(pictures, metrics, text):
    with pytest.raises(TypeError, match=text):
        evaluate(*pictures, metrics=metrics, extractor=GridMeans())


@pytest.mark.parametrize(
    ("options", "text"),
    [({"tol": -1.0}, "tol: expected None or a positive number, got -1.0")],
)
def test_options_of_the_fid_are_checked_at_once(options, text):
    with pytest.raises(ValueError, match=text):
        FrechetInceptionDistance(**options)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda *sides: evaluate(*sides, tol=1e-6), "tol is of compute_fid and FrechetInceptionDistance"),
        (lambda *sides: compute_fid(*sides, metrics=["kid"]), "metrics is of fastfid.evaluate"),
        (lambda *sides: evaluate(*sides, metric=["kid"]), "did you mean metrics?"),
        (lambda *sides: compute_statistics(sides[0], force=True), "force is of compute_fid"),
    ],
)
def test_keywords_of_other_functions(pictures, call, text):
    with pytest.raises(TypeError, match=re.escape(text)):
        call(*pictures)


def test_an_evaluation_keeps_no_rows(pictures):
    evaluation = evaluate(*pictures, metrics=NAMES, extractor=AllOutputs())
    assert len(pickle.dumps(evaluation)) < 6000
    assert pickle.loads(pickle.dumps(evaluation))["fid"] == evaluation["fid"]


def test_metrics_are_made_in_their_order():
    assert list(make_metrics(NAMES[::-1])) == NAMES[::-1]


# ------------------------------------------------------------------------------------------------------- command line


@pytest.fixture(scope="module")
def arrays(tmp_path_factory, pictures):
    folder = tmp_path_factory.mktemp("arrays")
    paths = [str(folder / name) for name in ("a.npy", "b.npy")]
    rng = np.random.default_rng(1)
    for path, high in zip(paths, (256, 200), strict=True):
        np.save(path, rng.integers(0, high, (70, 80, 90, 3), dtype=np.uint8))
    return paths


@pytest.mark.peers
def test_metrics_of_the_command_line(arrays, capfd):
    options = ["--dims", "64", "--quiet", "--device", "cpu"]
    for metrics in ("fid,kid,prdc,mind", "all"):
        assert main([*arrays, *options, "--metrics", metrics]) == 0
        printed = capfd.readouterr()
        lines = printed.out.splitlines()
        assert main([*arrays, *options, "--metrics", metrics, "--json"]) == 0
        record = [row for row in json.loads(capfd.readouterr().out)["metrics"] if row["value"] is not None]
        assert [line.split(":")[0] for line in lines] == [label_of(row["metric"]) for row in record]
        for line, row in zip(lines, record, strict=True):
            value, _, error = line.partition(":")[2].partition(" +- ")
            if error:  # two digits of the error, and the value to the same place
                digits = len(error.partition(".")[2])
                assert error == f"{row['standard_error']:.{digits}f}"
                assert digits == 0 or 10 <= round(float(error) * 10**digits) < 100
                assert value.strip() == f"{row['value']:.{digits}f}"
            else:
                assert (float(value), row["standard_error"]) == (row["value"], None)
    assert main([*arrays, *options]) == 0
    assert capfd.readouterr().out.strip() == f"FID:  {record[0]['value']}"
    assert main([*arrays, *options, "--metrics", "fid,sfid"]) == 1
    assert "sfid: needs the output spatial; the extractor gives features at 64 dims" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fid,kod"], "expected names among fid, sfid"),
        (["FID"], "got 'FID'; did you mean fid?"),
        (["precision"], "got 'precision'; precision is a value of prdc"),
        (["all,kid"], "got 'all'; all stands alone"),
        (["kid:adm"], "kid: expected a convention among torch-fidelity"),
        (["fid", "kid"], "names of metrics have commas between, as --metrics fid,kid"),
    ],
)
def test_metrics_that_the_command_line_does_not_know(capfd, words, said):
    with pytest.raises(SystemExit) as ended:
        main(["a", "b", "--metrics", *words])
    assert ended.value.code == 2
    assert said in capfd.readouterr().err


def test_why_there_is_no_error_bar_is_said(arrays, capfd):
    assert main([*arrays, "--dims", "64", "--num", "40", "--metrics", "fid,kid,mifid"]) == 0
    printed = capfd.readouterr()
    assert "fastfid: FID: no standard error: " in printed.err
    assert "n = 40 <= d = 64" in printed.err
    assert printed.out.splitlines()[1].startswith("KID:  ")
    assert " +- " in printed.out.splitlines()[1]


def test_states_of_the_first_version_still_load():
    stored = json.loads((ROOT / "tests" / "data" / "fid_state.json").read_text())

    def restored(value):
        if isinstance(value, dict) and set(value) == {"dtype", "shape", "hex"}:
            return np.frombuffer(bytes.fromhex(value["hex"]), value["dtype"]).reshape(value["shape"]).copy()
        return {key: restored(x) for key, x in value.items()} if isinstance(value, dict) else value

    fid = FID(extractor=GridMeans())
    fid.load_state_dict(restored(stored["state"]))
    assert (fid.real.n, fid.fake.n) == (9, 40)
    assert fid.compute().hex() == stored["fid"]
    fid.update(np.zeros((2, 9, 11, 3), np.uint8), real=True)
    assert fid.real.n == 11
