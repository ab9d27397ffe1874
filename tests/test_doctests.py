"""The examples in docstrings give the documented output, and every public name has an example.

Public names are those of ``fastfid`` and of the modules of ``fastfid.compat`` that replace another package's modules.
Every example runs in a separate folder with two folders of small pictures, ``real`` and ``fake``. It can use the names
of the module that contains it.
"""

import doctest
import importlib.util
import inspect
import pkgutil
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fastfid

COMPAT = (
    "fastfid.compat.cleanfid.features",
    "fastfid.compat.cleanfid.fid",
    "fastfid.compat.cleanfid.resize",
    "fastfid.compat.cleanfid.wrappers",
    "fastfid.compat.pytorch_fid.fid_score",
    "fastfid.compat.pytorch_fid.inception",
    "fastfid.compat.torchmetrics",
)


def module_names():
    """Every module of the package but the commands and the compiled ones, found without importing them."""
    found = ["fastfid", *(m.name for m in pkgutil.walk_packages(fastfid.__path__, "fastfid."))]
    return [name for name in found if not name.endswith(("__main__", "._core", "libfastfid_lapack"))]


pytestmark = pytest.mark.usefixtures("torchvision_importable")  # fastfid.compat.torchmetrics is imported


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("pictures")
    for side, limit in (("real", 256), ("fake", 160)):
        (folder / side).mkdir()
        for i in range(4):
            Image.fromarray(rng.integers(0, limit, (40, 40, 3), dtype=np.uint8)).save(folder / side / f"{i}.png")
    return folder


def documented(module):
    """The classes and functions of a module's ``__all__``, by name. Constants and types have no docstring."""
    named = {name: getattr(module, name) for name in getattr(module, "__all__", ())}
    return {name: target for name, target in named.items() if inspect.isclass(target) or inspect.isroutine(target)}


def methods(cls):
    """The public methods and properties that the class itself defines, but for those that its docstring lists."""
    attributes = (cls.__doc__ or "").partition("Attributes\n")[2]
    for name, member in vars(cls).items():
        is_method = callable(member) or inspect.isdatadescriptor(member) or isinstance(member, classmethod)
        if is_method and not name.startswith("_") and not re.search(rf"\b{name}\b", attributes):
            yield name, getattr(cls, name)


def own_docstring(target):
    """The docstring of the object itself. An inherited docstring of a class does not count."""
    return (vars(target).get("__doc__") if inspect.isclass(target) else target.__doc__) or ""


def test_the_table_of_public_modules_is_whole():
    found = {name for name in module_names() if name.startswith("fastfid.compat.") and "._" not in name}
    assert found == {*COMPAT, "fastfid.compat.cleanfid", "fastfid.compat.pytorch_fid"}


@pytest.mark.parametrize("name", module_names())
def test_every_name_and_method_has_a_docstring(name):
    module = importlib.import_module(name)
    without = [] if module.__doc__ else [name]
    for key, target in documented(module).items():
        members = methods(target) if inspect.isclass(target) else ()
        without += [path for path, member in members if not own_docstring(member)]
        without += [] if own_docstring(target) else [key]
    assert not without


@pytest.mark.parametrize("name", ["fastfid", *COMPAT])
def test_every_public_name_has_an_example(name):
    public = documented(importlib.import_module(name))
    assert public
    for key, target in public.items():
        examples = inspect.cleandoc(own_docstring(target)).partition("\nExamples\n--------\n")[2]
        assert ">>> " in examples, key


def examples(name):
    """(path, object) of all that has an example in a module, public or not, its methods too.

    Imported names are left to the module that defines and lists them.
    """
    module = importlib.import_module(name)
    found = {name: module}
    for key, target in documented(module).items():
        is_guest = target.__module__ != name and key in getattr(sys.modules[target.__module__], "__all__", ())
        if not is_guest:
            found[f"{name}.{key}"] = target
            if inspect.isclass(target):
                found |= {f"{name}.{key}.{method}": member for method, member in methods(target)}
    written = [(path, target) for path, target in found.items() if ">>> " in own_docstring(target)]
    assert written, f"{name}: examples only where nothing public is"
    return written


def has_examples(name):
    return ">>> " in Path(importlib.util.find_spec(name).origin).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [name for name in module_names() if has_examples(name)])
def test_examples_say_what_comes(name, pictures, weights, tmp_path, monkeypatch):
    for path, target in examples(name):
        shutil.copytree(pictures, tmp_path / path)
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path / path)
            patch.setattr(sys, "argv", ["pytest"])
            home = sys.modules[getattr(target, "__module__", name)]
            test = doctest.DocTestParser().get_doctest(target.__doc__, dict(vars(home)), path, None, 0)
            said = []
            runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
            runner.run(test, out=said.append)
            assert runner.tries == len(test.examples) > 0
            assert runner.failures == 0, "".join(said)
