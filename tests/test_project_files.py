"""Files for people who carry on: workflows call the scripts of .ci/run, and nothing names another version."""

import json
import os
import re
import shutil
import subprocess

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


@pytest.fixture
def ci(tmp_path):
    """Return a function that runs .ci/run: everything that it calls is a stand-in, which writes its command down.

    The stand-in fails where the variable FAILS is its command.
    """
    log, tools = tmp_path / "commands", tmp_path / "tools"
    tools.mkdir()
    stand_in = tools / "stand-in"
    stand_in.write_text(f"""#!/bin/sh
command="${{0##*/}} $*"
echo "$command" >>{log}
[ "$command" != "${{FAILS:-}}" ]
""")
    stand_in.chmod(0o755)
    for name in ("python3", "python", "pip", "make", "bash"):
        (tools / name).symlink_to(stand_in)
    script = [shutil.which("bash"), ROOT / ".ci" / "run"]

    def run(*arguments, **variables):
        log.write_text("")
        environment = {"PATH": f"{tools}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)} | variables
        done = subprocess.run(
            [*script, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        return done, log.read_text().splitlines()

    return run


def titles_of(done):
    return [line[4:] for line in done.stdout.splitlines() if re.match(r"=== (?!.*: \d+ s$)", line)]


def test_the_full_run_takes_parts_of_titles(ci):
    done, commands = ci("full", "clang-tidy", "fuzzing", FUZZ_MINUTES="5")
    assert done.returncode == 0, done.stderr
    assert titles_of(done) == [
        "installation",
        "tools of the lint",
        "clang-tidy",
        "fuzzing: FUZZ_MINUTES a target",
        "done",
    ]
    assert [line for line in commands if not line.startswith("python3 -m venv ")] == [
        "pip install .[test]",
        "python -",
        "python -m pip install -q",
        "make tidy",
        "python -m pip install -q atheris",
        "python fuzz/readers.py --minutes 5",
        "bash tools/fuzz_core.sh --minutes 5",
    ]


def test_without_parts_of_titles_every_section_runs(ci):
    short, its_commands = ci()
    full, commands = ci("full")
    assert (short.returncode, full.returncode) == (0, 0)
    all_titles = re.findall(r'\bif section "(.+)"; then$', (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert [title for title in titles_of(full) if title not in ("tools of the lint", "done")] == all_titles
    assert titles_of(short)[:-1] == titles_of(full)[: len(titles_of(short)) - 1]
    assert its_commands[1:] == commands[1 : len(its_commands)]  # the first ones name folders of their own
    assert "python -m pytest --durations=20" in its_commands
    assert "python fuzz/readers.py --minutes 60" in commands


@pytest.mark.parametrize("fails", ["pip install .[test]", "make lint lint-examples workflows", "make tidy"])
def test_a_command_that_fails_ends_the_run(ci, fails):
    done, commands = ci("full", FAILS=fails)
    assert done.returncode == 1
    assert commands[-1] == fails


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        (["quick"], {}, "quick: expected nothing, or full, or full and parts of the titles of sections"),
        (
            ["full", "clang-tidy", "nonsense"],
            {},
            "nonsense: no section has this in its title; the titles are:\ntests: ",
        ),
        ([], {"FUZZ_MINUTES": "0.5"}, "FUZZ_MINUTES=0.5: expected a whole number of minutes, 1 or more"),
    ],
)
def test_ci_run_refuses_other_arguments(ci, arguments, variables, said):
    done, commands = ci(*arguments, **variables)
    assert (done.returncode, commands) == (2, [])
    assert done.stderr.startswith(f".ci/run: {said}")


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
