"""The pages in docs/ agree with the behaviour of fastfid."""

import pkgutil
import re
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
from stubs import AllOutputs, GridMeans

import fastfid
from fastfid import compute_fid, evaluate, frechet_distance
from fastfid.metrics import METRICS
from fastfid.protocols import PROTOCOLS
from fastfid.record import (
    DistanceRecord,
    EvaluationRecord,
    FIDRecord,
    FileIdentity,
    MetricRecord,
    RecordedOptions,
    RunRecord,
    Seconds,
)
from fastfid.sources.picture import FORMATS

ROOT = Path(__file__).resolve().parents[1]


RECORD_PAGE = (ROOT / "docs" / "json.md").read_text()


def explained(heading=""):
    """The keys in the first column of the table below a heading of docs/json.md, in two parts: before "of a run"."""
    table = RECORD_PAGE.partition(heading)[2] if heading else RECORD_PAGE
    parts = table.partition("\n## ")[0].partition("| **of a run** |")[::2]
    return [
        {
            key
            for line in part.splitlines()
            if line.startswith("| `")
            for key in re.findall(r"`(\w+)`", line.split("|")[1])
        }
        for part in parts
    ]


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    rng = np.random.default_rng(0)
    real, fake = (rng.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8) for _ in range(2))
    paths = [tmp_path_factory.mktemp("record") / name for name in ("real.npy", "fake.npy")]
    for path, images in zip(paths, (real, fake), strict=True):
        np.save(path, images)
    run = tmp_path_factory.mktemp("run")
    fid = compute_fid(*paths, extractor=GridMeans(), hash_inputs=True, run_dir=run, return_info=True)
    return fid, evaluate(real, fake, metrics=list(METRICS), extractor=AllOutputs()).to_dict()


def test_the_page_of_the_record_has_every_key(records):
    of_distances, of_runs = explained()
    for record in records:
        assert set(record) == of_distances | of_runs
        assert set(record["options"]) == explained("## The keys of `options`")[0]
        for row in record["metrics"]:
            assert set(row) == explained("## The rows of `metrics`")[0]
        details = {key for row in record["metrics"] for key in row["details"]}
        for key in (*details, *record["seconds"], "name", "reason"):
            assert f"`{key}`" in RECORD_PAGE
    for found in records[0]["sources"].values():
        assert set(found) == explained("## The keys of `sources`")[0]
    for identity in records[0]["inputs"].values():
        assert set(identity) == explained("## The keys of `inputs`")[0]
    distance = frechet_distance(([0.0], [[1.0]]), ([3.0], [[4.0]]), return_info=True)
    assert set(distance) == of_distances


def test_the_types_of_the_record_have_every_key(records):
    distance = frechet_distance(([0.0], [[1.0]]), ([3.0], [[4.0]]), return_info=True)
    for one, kind in ((distance, DistanceRecord), (records[0], FIDRecord), (records[1], EvaluationRecord)):
        assert set(one) == set(get_type_hints(kind))
    assert set(get_type_hints(FIDRecord)) == set(FIDRecord.__required_keys__)
    assert set(records[0]["metrics"][0]) == set(get_type_hints(MetricRecord))
    assert set(records[0]["options"]) == set(get_type_hints(RecordedOptions))
    assert set(records[0]["seconds"]) == set(get_type_hints(Seconds))
    assert set(records[0]["inputs"]["real"]) == set(get_type_hints(FileIdentity))
    assert set(records[0]["run"]) == set(get_type_hints(RunRecord)) == explained("## The keys of `run`")[0]


def test_the_reference_lists_every_public_name():
    listed = re.findall(r"^- `([\w.]+)`", (ROOT / "docs" / "reference.md").read_text(), re.MULTILINE)
    public = {f"fastfid.{name}" for name in fastfid.__all__ if name != "__version__"}
    public |= {f"fastfid.metrics.{name}" for name in fastfid.metrics._FUNCTIONS}
    assert dir(fastfid) == sorted(fastfid.__all__)
    assert len(listed) == len(set(listed))
    assert public - set(listed) == set(), "docs/reference.md: a line for each of these names"


def test_the_reference_has_every_name_that_a_page_tells():
    """Classes and functions of modules. The replacements for other packages are listed by their modules."""
    listed = set(re.findall(r"^- `([\w.]+)`", (ROOT / "docs" / "reference.md").read_text(), re.MULTILINE))
    told = set()
    for page in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]:
        text = page.read_text()
        told |= set(re.findall(r"\b(fastfid(?:\.[a-z]\w*)*\.[a-z]\w*\.\w+)\b", text))
        for module, names in re.findall(r"from (fastfid\.[\w.]+) import ([\w, ]+)", text):
            told |= {f"{module}.{name}" for name in names.split(", ")}
    for name in told:
        if not name.startswith(("fastfid.compat.", "fastfid._core.")):
            assert name in listed or not callable(pkgutil.resolve_name(name)), f"docs/reference.md: a line for {name}"


def test_the_page_of_the_command_line_lists_every_command():
    from fastfid.cli import study
    from fastfid.cli.commands import COMMANDS

    listed = re.findall(r"^- `fastfid ?([\w ]*)`$", (ROOT / "docs" / "commands.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(["", *COMMANDS, *(f"study {name}" for name in study.PARSERS)])


def test_the_navigation_has_every_page():
    listed = re.findall(r"^(\w+)$", (ROOT / "docs" / "index.md").read_text(), re.MULTILINE)
    assert sorted([*listed, "index"]) == sorted(page.stem for page in (ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"], ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_page_of_the_protocols_has_every_one():
    listed = re.findall(r"^\| `([\w-]+)`", (ROOT / "docs" / "protocols.md").read_text(), re.MULTILINE)
    assert listed == list(PROTOCOLS)


def test_the_formats_of_pictures_are_listed():
    listed = re.search(r"Read are (.*?)\.\s", (ROOT / "docs" / "sources.md").read_text(), re.DOTALL)[1]
    assert re.findall(r"[A-Z0-9]{2,}", listed) == list(FORMATS)


def test_every_option_of_the_command_line_is_explained_once():
    from fastfid.cli.commands import COMMANDS, parser_of

    for command in ["", *COMMANDS]:
        for action in parser_of(command)._actions:
            assert action.help, action.option_strings
