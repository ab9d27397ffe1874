"""python/fastfid/_core.pyi agrees with the built module: names, members of classes, parameters and their defaults.

pybind11 lists the parameters of a function in the error for an invalid call. Names that need CUDA are compared only if
the build has CUDA.
"""

import ast
import inspect
import re
from pathlib import Path

import pytest

from fastfid import _core

STUB = ast.parse((Path(__file__).resolve().parents[1] / "python" / "fastfid" / "_core.pyi").read_text())
HAS_CUDA = isinstance(getattr(_core, "CudaStream", None), type)
# DeviceMoments is there in every build, but empty without CUDA: it says so when it is made.
NEEDS_CUDA = re.compile(r"Cuda|DeviceMoments$|cuda_spatial_mean$")


def is_dunder(name):
    return name.startswith("__") and name.endswith("__")


def of_type(nodes, kind):
    return {node.name: node for node in nodes if isinstance(node, kind)}


FUNCTIONS = of_type(STUB.body, ast.FunctionDef)
CLASSES = of_type(STUB.body, ast.ClassDef)
SUBMODULES = {"_testing": CLASSES.pop("_testing")}  # a stub file can show a submodule as a class only


def skip_what_is_not_built(name):
    if NEEDS_CUDA.match(name) and not HAS_CUDA:
        pytest.skip("this build has no CUDA")


def public(names):
    return {name for name in names if not is_dunder(name) and name != "_pybind11_conduit_v1_"}


def decorators(function):
    return {decorator.id for decorator in function.decorator_list}


def stub_parameters(function):
    """[(text of the default or None, is it keyword-only), ...] by name, without self."""
    arguments = function.args
    positional = arguments.posonlyargs + arguments.args
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    found = [(a.arg, d, False) for a, d in zip(positional, defaults, strict=True) if a.arg != "self"]
    found += [(a.arg, d, True) for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    if arguments.kwarg:
        found.append((f"**{arguments.kwarg.arg}", None, True))
    return [(name, None if default is None else ast.unparse(default), keyword) for name, default, keyword in found]


def split(text):
    """The parts of a signature between the commas that are in no bracket and no string."""
    parts, depth, quoted = [""], 0, False
    for letter in text:
        quoted ^= letter in "'\""
        depth += 0 if quoted else (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def module_parameters(function):
    """The same of a function or class of the module, from the message with which it refuses a call."""
    with pytest.raises(TypeError, match="argument types are supported") as refused:
        function(no_such_argument=None)
    assert "std::" not in str(refused.value), "a C++ type that no Python value becomes: is pybind11/stl.h included?"
    signatures = re.findall(r"^    \d+\. [\w.]*\((.*)\)(?: -> .*)?$", str(refused.value), re.MULTILINE)
    assert len(signatures) == 1, f"{function}: the stub has one signature, the module {signatures}"
    found, keyword = [], False
    for part in split(signatures[0]):
        if part == "*":
            keyword = True
            continue
        declared, _, default = part.partition(" = ")
        name = declared.partition(":")[0]
        if name != "self":
            found.append((name, default or None, keyword or name.startswith("**")))
    return found


def test_the_stub_has_the_names_of_the_module():
    declared = {*FUNCTIONS, *CLASSES, *SUBMODULES}
    if not HAS_CUDA:
        declared -= {name for name in declared if NEEDS_CUDA.match(name)} - {"DeviceMoments"}
    assert declared == public(vars(_core))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_the_parameters_of_the_stub(name):
    skip_what_is_not_built(name)
    assert stub_parameters(FUNCTIONS[name]) == module_parameters(getattr(_core, name))


@pytest.mark.parametrize("name", SUBMODULES)
def test_submodules_have_the_functions_of_the_stub(name):
    module, functions = getattr(_core, name), of_type(SUBMODULES[name].body, ast.FunctionDef)
    assert set(functions) == public(vars(module))
    for key, function in functions.items():
        assert stub_parameters(function) == module_parameters(getattr(module, key)), key


@pytest.mark.parametrize("name", CLASSES)
def test_classes_have_the_members_of_the_stub(name):
    skip_what_is_not_built(name)
    cls, node = getattr(_core, name), CLASSES[name]
    members = of_type(node.body, ast.FunctionDef)
    if issubclass(cls, Exception):
        assert [base.id for base in node.bases] == [base.__name__ for base in cls.__bases__]
    assert public(members) == public(vars(cls))
    assert set(members) <= set(vars(cls))
    for key, function in members.items():
        member = inspect.getattr_static(cls, key)
        kind = type(member).__name__
        assert decorators(function) == ({kind} & {"property", "staticmethod"}), key
        if key == "__init__":
            assert stub_parameters(function) == module_parameters(cls), key
        elif not isinstance(member, property):
            assert stub_parameters(function) == module_parameters(getattr(cls, key)), key
