"""The pages in docs/ agree with the behaviour of fastfid."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from stubs import GridMeans

from fastfid import compute_fid
from fastfid.protocols import PROTOCOLS
from fastfid.sources.picture import FORMATS

ROOT = Path(__file__).resolve().parents[1]


def test_the_page_of_the_record_has_every_key():
    page = (ROOT / "docs" / "json.md").read_text().partition("## Several metrics")[0]
    explained = {
        key
        for line in page.splitlines()
        if line.startswith("| `")
        for key in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    rng = np.random.default_rng(0)
    real, fake = (rng.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8) for _ in range(2))
    record = compute_fid(real, fake, extractor=GridMeans(), uncertainty=True, return_info=True)
    assert set(record) == explained
    for key in (*record["uncertainty"], *record["seconds"], "name", "reason"):
        assert f"`{key}`" in page
    json.dumps(record, allow_nan=False)


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
    from fastfid.cli.options import PARSERS

    for make in PARSERS.values():
        for action in make()._actions:
            assert action.help, action.option_strings
