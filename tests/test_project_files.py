"""Files for people who carry on: workflows call the scripts of .ci/run, and nothing names another version."""

import json
import re

import pytest
from pages import ROOT

import fastfid
from fastfid.cli import main

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
STEPS = [
    (path.name, step)
    for path in WORKFLOWS
    for line in re.findall(r"^\s*- run: (.+)$", path.read_text(), re.MULTILINE)
    for step in line.split(" && ")
]


@pytest.mark.parametrize(("workflow", "step"), STEPS)
def test_a_workflow_has_no_command_of_its_own(workflow, step):
    """What runs on a hosted runner alone would not be seen to break here."""
    run = (ROOT / ".ci" / "run").read_text()
    step = re.sub(r"^DIST=\w+ ", "", step)
    command, *rest = step.split()
    if command == "make":
        targets = [word for word in rest if not word.startswith("ARGS=")]
        for target in targets:
            assert re.search(rf"\bmake\b.* {target}\b|\bmake {target}\b", run), f"{workflow}: make {target}"
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif step == "bash .ci/run full":
        return
    elif command == "bash":
        assert (ROOT / rest[0]).is_file()
        assert f"bash {rest[0]}" in run, f"{workflow}: {step}"
    else:
        assert step.startswith(('pip install ".[test]"', 'pip install -e ".[test', "python -m pytest")), step


def test_every_workflow_says_that_no_hosted_runner_has_seen_it():
    assert len(WORKFLOWS) == 3
    for path in WORKFLOWS:
        assert "Configured, not run" in path.read_text()


def test_the_citation_names_this_version():
    text = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {fastfid.__version__}\n" in text
    for origin in ("Two Time-Scale Update Rule", "pt_inception-2015-12-05"):
        assert origin in text


def test_a_report_of_a_bug_has_what_is_asked_for(capsys):
    assert "fastfid info --json" in (ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text()
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fastfid"] == fastfid.__version__
    assert {"python", "platform", "compiler", "blas", "cuda", "threads", "numpy", "onnxruntime", "weights"} <= set(
        found
    )
