"""What the site adds to the pages of docs/. `make docs` builds the site itself, with warnings as errors."""

import re

import pages
import pytest

from fastfid.cli.commands import COMMANDS, parser_of
from tools.site.pages import complete, requests


def page(name):
    return complete(name, (pages.ROOT / "docs" / f"{name}.md").read_text())


def test_the_page_of_the_command_line_has_every_option_of_every_command():
    sections = re.split(r"^## `(.+)`$", page("commands"), flags=re.MULTILINE)[1:]
    found = dict(zip(sections[::2], sections[1::2], strict=True))
    for command in ["", *COMMANDS]:
        parser = parser_of(command)
        for action in parser._actions:
            for option in action.option_strings:
                assert re.search(rf"^`.*{option}\b.*`\n: \w", found[parser.prog], re.MULTILINE), (parser.prog, option)


@pytest.mark.usefixtures("torchvision_importable")
def test_a_name_without_a_docstring_ends_the_build(monkeypatch):
    text = page("reference")
    assert ".. autofunction:: fastfid.compute_fid" in text
    assert ".. automethod:: fastfid.Moments.update(x)" in text  # which has no signature in Python
    monkeypatch.setattr("fastfid.evaluation.evaluate.compute_fid.__doc__", "")
    with pytest.raises(ValueError, match=r"docs/reference\.md: fastfid\.compute_fid has no docstring"):
        page("reference")


def test_links_between_files_are_links_between_pages():
    assert complete("x", "[README](../README.md#figures), [NOTICE](NOTICE)") == "[README](index.md#figures), `NOTICE`"
    assert complete("x", "[docs/json.md](docs/json.md), [a](https://b.c/README.md)") == (
        "[](json.md), [a](https://b.c/README.md)"
    )


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://a.b/c.js"></script>',
        '<link rel="stylesheet" href="//a.b/c.css" />',
        '<img alt="" src="http://a.b/c.png">',
    ],
)
def test_a_page_that_asks_another_machine_is_found(text, tmp_path):
    (tmp_path / "a.html").write_text(f'<a class="x" href="https://a.b">a</a><img src="c.png">{text}')
    assert len(requests(tmp_path / "a.html")) == 1


def test_a_style_that_asks_another_machine_is_found(tmp_path):
    (tmp_path / "a.css").write_text("a { b: url(c.png) } d { e: url('https://a.b/c.woff') }")
    assert requests(tmp_path / "a.css") == ["url('https://a.b/c.woff')"]
