"""What the site adds to the pages of docs/ while Sphinx reads them."""

import argparse
import ast
import functools
import importlib
import inspect
import re
import types
from pathlib import Path
from typing import Any

from fastfid.cli import study
from fastfid.cli.commands import parser_of

ROOT = Path(__file__).resolve().parents[2]
# Pages whose text is a file at the root of the repository; what the page in docs/ holds comes after it.
AT_THE_ROOT = {"index": "README.md", "changelog": "CHANGELOG.md", "developing": "DEVELOPING.md"}
_LISTED = r"^- `([\w.]+)`$"  # a name of docs/reference.md
_PAGES = {file: f"{page}.md" for page, file in AT_THE_ROOT.items()}


def complete(name: str, text: str) -> str:
    """Return the text of the page `name` as the site has it."""
    if name in AT_THE_ROOT:
        text = f"{(ROOT / AT_THE_ROOT[name]).read_text(encoding='utf-8')}\n{text}"
    if name == "reference":
        text = re.sub(_LISTED, lambda found: _documented(found[1]), text, flags=re.MULTILINE)
    if name == "commands":
        text = re.sub(r"^- `fastfid ?([\w ]*)`.*$", lambda found: _command(found[1]), text, flags=re.MULTILINE)
    text = re.sub(r"\[([^][]*)\]\((?:LICENSE|NOTICE)\)", r"`\1`", text)  # files of the package, without a page
    text = re.sub(r"\]\((?:\.\./|docs/)?(\w+\.md)", lambda found: f"]({_PAGES.get(found[1], found[1])}", text)
    return re.sub(r"\[[\w/]+\.md\]", "[]", text)  # of the title of the page or the section, not of the file


def _documented(path: str) -> str:
    """Return the directive that shows the docstrings of a module, class, exception or function."""
    target = _named(path)
    if inspect.ismodule(target):
        kind, options = "module", [":members:", ":imported-members:"]
    elif inspect.isclass(target):
        kind = "exception" if issubclass(target, BaseException) else "class"
        options = [] if kind == "exception" else [":members:", ":inherited-members:"]
    elif callable(target):
        kind, options = "function", []
    else:
        raise TypeError(f"docs/reference.md: {path}: expected a module, a class or a function, got {target!r}")
    if not (target.__doc__ or "").strip():
        raise ValueError(f"docs/reference.md: {path} has no docstring: write one")
    lines = [f".. auto{kind}:: {path}", *(f"   {option}" for option in options)]
    if kind == "class" and target.__module__ == "fastfid._core":
        lines = [lines[0], *(line for member in _compiled_members(target, path) for line in ("", f"   {member}"))]
    return "\n".join(["```{eval-rst}", *lines, "```"])


def returned(target: Any) -> str | None:
    """Return the classes that a function returns, if the reference lists them all; else None."""
    found = getattr(target, "__annotations__", {}).get("return")
    kinds = found.__args__ if isinstance(found, types.UnionType) else (found,)
    if not all(inspect.isclass(kind) and kind in _listed() for kind in kinds):
        return None
    return " | ".join(f"~{_listed()[kind]}" for kind in kinds)


@functools.cache
def _listed() -> dict[Any, str]:
    """Return the names that the reference lists, by what they are the names of."""
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    return {_named(path): path for path in re.findall(_LISTED, text, re.MULTILINE)}


def _compiled_members(target: type, path: str) -> list[str]:
    """Return the directives of the members of a class in C++, with the arguments that its stub has."""
    stub = ast.parse((ROOT / "python" / "fastfid" / "_core.pyi").read_text(encoding="utf-8"))
    found = []
    for node in next(node for node in stub.body if getattr(node, "name", None) == target.__name__).body:
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
            continue
        if "(*args" in (getattr(target, node.name, None).__doc__ or "(*args"):  # of builds with CUDA only
            continue
        if "property" in map(ast.unparse, node.decorator_list):
            found.append(f".. autoproperty:: {path}.{node.name}")
            continue
        node.args.args = [argument for argument in node.args.args if argument.arg != "self"]
        for argument in (*node.args.args, *node.args.kwonlyargs):
            argument.annotation = None  # as in the rest of the reference: the docstring has the types
        found.append(f".. automethod:: {path}.{node.name}({ast.unparse(node.args)})")
    return found


def requests(page: Path) -> list[str]:
    """Return what a page of the site, or a style, would fetch from elsewhere when it is opened. Links are none."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".css":
        return re.findall(r"url\([\"']?(?:https?:)?//[^)]*\)|@import[^;]*", text)
    return re.findall(r"<(?!a\b)\w+\b[^>]*\b(?:src|href)=\"(?:https?:)?//[^>]*>", text)


def _named(path: str) -> Any:
    """Return the module or the object with this path."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not path.startswith(error.name):
            raise  # a package that the module needs
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _command(name: str) -> str:
    """Return the description, the usage and every option of a command, from its parser."""
    is_study = name.startswith("study ")
    parser = study.PARSERS[name.removeprefix("study ")]() if is_study else parser_of(name)
    parts = [f"## `{parser.prog}`", _block(parser.description), _block(parser.format_usage())]
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
        if actions:
            parts.append(f"**{(group.title or '').capitalize()}**")
            parts += [_option(parser, action) for action in actions]
    parts.append(_block(parser.epilog))
    return "\n\n".join(part for part in parts if part)


def _block(text: str | None) -> str:
    return f"```text\n{text.strip()}\n```" if text else ""


def _option(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """Return an option with its argument, and below it what it does."""
    formatter = parser._get_formatter()
    formatter.add_argument(action)
    head = formatter._format_action_invocation(action)
    words = re.sub(r"([\\`*_<>|#~^$])", r"\\\1", formatter._expand_help(action))
    words = re.sub(r"docs/(\w+\.md)", r"[\1](\1)", words)
    return f"`{head}`\n: {words}"
