"""The benchmark harness: detection of failures, and README with the committed results. No test depends on times."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import figures, report
from benchmarks.__main__ import kept_results, stages
from benchmarks.harness import (
    Agreement,
    Command,
    Config,
    Measured,
    Result,
    compare,
    compare_commands,
    costs,
    faster,
    keeps_up,
    probe,
    run_command,
)

REPOSITORY = Path(__file__).resolve().parent.parent


def _answers(**answers):
    return {name: lambda answer=answer: answer for name, answer in answers.items()}


@pytest.mark.parametrize("wrong", [1.1, np.nan])
def test_a_wrong_answer_stops_the_case(wrong):
    with pytest.raises(AssertionError, match="case: fastfid differs by"):
        compare(Config(), "case", _answers(fastfid=wrong, peer=1.0), against="peer", agree=Agreement(absolute=0.01))


def test_an_answer_of_another_shape_stops_the_case():
    answers = _answers(fastfid=np.ones(3), peer=np.ones(4))
    with pytest.raises(AssertionError, match="shape"):
        compare(Config(), "case", answers, against="peer", agree=Agreement(absolute=1))


def test_later_calls_are_checked_too():
    calls = itertools.chain([1.0], itertools.repeat(2.0))
    contenders = {"fastfid": lambda: next(calls), "peer": lambda: 1.0}
    with pytest.raises(AssertionError, match="differs by 1"):
        compare(Config(), "case", contenders, against="peer", agree=Agreement(), repeats=1)


def test_a_stage_that_resumes_keeps_the_cases_of_a_run_that_was_cut_off():
    cut_off = {"error": "exit code -9 with 2 threads", "mode": "full", "results": [{"case": "one"}]}
    cifar = stages()["cifar"]
    assert kept_results(cifar, cut_off, "full") == cut_off["results"]
    assert kept_results(cifar, cut_off, "quick") == []
    assert kept_results(cifar, cut_off | {"error": ""}, "full") == []  # it is whole: a new run is a new run
    assert kept_results(cifar, None, "full") == []
    assert kept_results(stages()["trace"], cut_off, "full") == []


def test_the_largest_difference_is_kept():
    result = compare(
        Config(), "case", _answers(fastfid=1.25, peer=1.0), against="peer", agree=Agreement(absolute=0.5), repeats=2
    )
    assert result.agreement["difference"]["fastfid"] == 0.25
    assert [len(m.seconds) for m in result.measured] == [2, 2]


def test_ratio_and_target_by_the_median():
    ours, peer = Measured("fastfid", [1.0, 2.0, 9.0]), Measured("peer", [3.0, 3.0, 30.0])
    by_name = {"fastfid": ours, "peer": peer}
    missed, met = (faster("fastfid", than="peer", times=times)(by_name) for times in (1.6, 1.5))
    assert (missed.measured, missed.met, met.met) == (1.5, False, True)
    row = Result("case", [ours, peer], "peer", 1, targets=[missed]).as_dict()
    assert [entry["ratio"] for entry in row["measured"]] == [1.5, 1.0]
    assert "**not met**" in report.stage_table({"results": [row]})


def test_commands_their_answers_and_memory():
    program = "import sys; block = bytearray(int(sys.argv[1]) << 20); print('FID: ', 7.5)"

    def command(mib):
        return Command([sys.executable, "-c", program, str(mib)], lambda process: float(process.stdout.split()[1]))

    result = compare_commands(
        Config(),
        "case",
        {"fastfid": command(1), "peer": command(200)},
        against="peer",
        agree=Agreement(),
        warm_up=0,
        repeats=1,
    )
    ours, peer = result.measured
    assert ours.answer == peer.answer == 7.5
    assert 190 < peer.peak_mib - ours.peak_mib < 215


def test_peak_memory_is_not_the_callers():
    ballast = np.ones(300 << 17)  # 300 MiB
    done = run_command(Command([sys.executable, "-I", "-S", "-c", "pass"]), threads=1)
    assert done.peak_mib < 100 < ballast.nbytes / 2**20


def test_a_failing_command_says_why():
    program = "import sys; print('out of order', file=sys.stderr); sys.exit(3)"
    with pytest.raises(RuntimeError, match="exit 3\nout of order"):
        run_command(Command([sys.executable, "-c", program]), threads=1)


def grow(mib):
    """A function that `probe` calls in a separate process."""
    return float(np.ones(mib << 17)[-1])


def test_probe_measures_growth(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    found = probe(Config(python=sys.executable), grow, mib=150)
    assert found.answer == 1.0
    assert 140 < found.grew_mib < 165


def test_a_share_is_judged_round_by_round():
    # The machine slows down by half in the third round, and the peer has no time left for a fourth.
    measured = {
        "fastfid": Measured("fastfid", [1.0, 1.0, 2.0, 9.0]),
        "peer": Measured("peer", [0.9, 0.95, 1.9]),
    }
    target = keeps_up("fastfid", with_="peer", share=0.95)(measured)
    assert target.measured == 0.95
    assert target.met
    assert not keeps_up("fastfid", with_="peer", share=0.96)(measured).met
    target = costs("fastfid", times=1.06, of="peer")(measured)
    assert target.measured == 1.0 / 0.95
    assert target.met
    assert not costs("fastfid", times=1.05, of="peer")(measured).met


def _results(seconds_ours, seconds_peer):
    measured = [Measured("fastfid", [seconds_ours]), Measured("pytorch-fid", [seconds_peer])]
    result = Result("192 + 192 PNG of 256 x 256", measured, "pytorch-fid", 2)
    record = {
        "summary": "s",
        "command": "c",
        "started": "2026-01-02T00:00:00",
        "mode": "full",
        "commit": "",
        "load_average": [0.0],
        "error": "",
        "results": [result.as_dict()],
    }
    return {"machine": {"cpu": "Some CPU", "cores": 2, "memory_gib": 8}, "stages": {"folders": record}}


def test_the_table_says_where_we_are_behind():
    assert "| 2.0 x |" in figures.summary(_results(1.0, 2.0))
    assert "**0.50 x: slower**" in figures.summary(_results(2.0, 1.0))


def test_markers_are_filled_and_nothing_else(tmp_path):
    (tmp_path / "box.json").write_text(json.dumps(_results(1.0, 2.0)))
    text = "before\n<!-- figures: folders box -->\nstale 99 x\n<!-- /figures -->\nafter\n"
    made = figures.rewrite(text, tmp_path)
    assert made.startswith("before\n<!-- figures: folders box -->\n| case |")
    assert made.endswith("<!-- /figures -->\nafter\n")
    assert "99" not in made
    assert figures.rewrite(made, tmp_path) == made
    with pytest.raises(LookupError, match=r"no file other\.json"):
        figures.rewrite(text.replace("box", "other"), tmp_path)
    unnamed = figures.rewrite(text.replace("folders box", "summary"), tmp_path)
    assert "| 2.0 x |" in unnamed
    (tmp_path / "second.json").write_text(json.dumps(_results(1.0, 2.0)))
    with pytest.raises(LookupError, match="which machine: box, second"):
        figures.rewrite(text.replace("folders box", "summary"), tmp_path)
    with pytest.raises(LookupError, match="no such stage"):
        figures.rewrite(text.replace("figures: folders", "figures: nonsense"), tmp_path)


def test_readme_and_docs_agree_with_the_committed_results():
    command = [sys.executable, "-m", "benchmarks.figures", "--check"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_line_of_the_summary_names_a_stage():
    known = stages()
    assert {line.stage for line in figures.SUMMARY} <= set(known)
    assert all(stage.summary for stage in known.values())
