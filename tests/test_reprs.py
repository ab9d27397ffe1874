"""What results, sets and statistics print as: one line in a terminal, a table in a notebook."""

import dataclasses

import numpy as np
import pytest
from stubs import AllOutputs

import fastfid
from fastfid import Statistics, evaluate
from fastfid._html import table
from fastfid.metrics import METRICS
from fastfid.metrics.base import Result


@pytest.fixture(scope="module")
def evaluation():
    rng = np.random.default_rng(0)
    real, fake = (rng.integers(0, 256, (n, 9, 11, 3), dtype=np.uint8) for n in (60, 45))
    return evaluate(real, fake, metrics=list(METRICS), extractor=AllOutputs())


def test_results_are_one_short_line(evaluation):
    for result in evaluation.values():
        assert repr(result).startswith(f"{type(result).__name__}(value={result.value:.6g}")
        assert len(repr(result)) < 80
    fid = dataclasses.replace(evaluation["fid"], value=12.345678, standard_error=0.21049)
    assert repr(fid) == "FIDResult(value=12.3457, standard_error=0.21)"
    assert repr(Result(1.0)) == "Result(value=1)"


def test_sets_and_evaluations_are_one_line(evaluation):
    assert repr(evaluation.real) == "EvaluatedSet(name='array', n=60)"
    values = ", ".join(f"{name}={result.value:.6g}" for name, result in evaluation.items())
    assert repr(evaluation) == f"Evaluation({values}, real='array', fake='array')"


def test_an_evaluation_is_a_table_in_a_notebook(evaluation):
    side = dataclasses.replace(evaluation.real, name="<b>&\x1b\udcff", n=None)
    fid = dataclasses.replace(evaluation["fid"], value=12.345678, standard_error=0.21049)
    shown = dataclasses.replace(evaluation, real=side, results={"fid": fid, "<x>": Result(2.0)})._repr_html_()
    assert "<caption>&lt;b&gt;&amp;\\x1b\\udcff and array</caption>" in shown
    assert "<tr><td>fid</td><td>12.3457</td><td>\u00b1 0.21</td><td>unknown and 45</td></tr>" in shown
    assert "<tr><td>&lt;x&gt;</td><td>2</td><td></td>" in shown
    assert shown.startswith("<table>")
    assert shown.endswith("</table>")
    shown.encode()


def test_statistics_are_a_table_in_a_notebook():
    shown = Statistics(np.zeros(3), np.eye(3), 10, {"protocol": "<clean>"}, name="a&b.npz")._repr_html_()
    assert "<caption>Statistics of a&amp;b.npz</caption>" in shown
    assert "<tr><td>n</td><td>10</td></tr><tr><td>protocol</td><td>&lt;clean&gt;</td></tr>" in shown
    assert "<td>precision</td><td>unknown</td>" in shown
    assert "<th>" not in shown


def test_a_table_escapes_its_head_too():
    assert table(["<"], []) == "<table><tr><th>&lt;</th></tr></table>"


def test_networks_and_growing_sets_are_one_line(weights):
    assert repr(fastfid.InceptionV3(64, device="cpu")) == (
        "InceptionV3(dims=64, protocol='pytorch-fid', device='cpu', precision='float32')"
    )
    fid = fastfid.FID(dims=64)
    assert repr(fid) == "FID(dims=64, protocol='pytorch-fid', real=0, fake=0)"
    fid.update(np.zeros((2, 32, 32, 3), np.uint8), real=False)
    assert repr(fid) == "FID(dims=64, protocol='pytorch-fid', real=0, fake=2)"
