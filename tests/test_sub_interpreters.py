"""The core works in the main interpreter, with the GIL: in any other one its import fails, and does not hang."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

PROGRAM = """
import sys
try:
    import _interpreters as interpreters  # Python 3.13
except ImportError:
    import _xxsubinterpreters as interpreters

def create(isolated):
    if hasattr(interpreters, "new_config"):
        return interpreters.create("isolated" if isolated else "legacy")
    return interpreters.create(isolated=isolated)

INSIDE = '''
import sys
sys.path[:] = {path}
try:
    {statement}
except ImportError as error:
    print("ImportError:", error, flush=True)
else:
    print("imported", flush=True)
'''

isolated, main_first, statement = sys.argv[1] == "isolated", sys.argv[2] == "after main", sys.argv[3]
if main_first:
    import fastfid._core
for _ in range(2):
    interpreters.run_string(create(isolated), INSIDE.format(path=sys.path, statement=statement))
import fastfid
print(fastfid.frechet_distance(([0.0], [[1.0]]), ([3.0], [[4.0]])))
"""


@pytest.mark.parametrize("kind", ["isolated", "legacy"])
@pytest.mark.parametrize("order", ["before main", "after main"])
@pytest.mark.parametrize("statement", ["import fastfid._core", "import fastfid; fastfid.Moments(3)"])
def test_a_sub_interpreter_gets_an_error(kind, order, statement):
    """On Python 3.11, pybind11's own start of a module waits for ever there; and the main interpreter goes on."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, kind, order, statement],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second, distance = done.stdout.splitlines()
    assert first == second
    # From Python 3.13 on, isolated interpreters are refused by Python, in its words.
    assert re.match(r"ImportError: .*\bfastfid\._core\b.*\bsub-?interpreter", first)
    if sys.version_info < (3, 13) or kind == "legacy":
        assert first.endswith("import fastfid in the main interpreter, or in another process")
    assert distance == "10.0"


def test_the_module_declares_one_interpreter_and_the_gil():
    """Python 3.12 and 3.13 have slots for the two; their absence is "needs the GIL", and 3.11 has neither."""
    text = (ROOT / "csrc" / "bindings" / "module.cpp").read_text()
    [options] = re.findall(r"^PYBIND11_MODULE\(\w+, module, (.*)\) \{$", text, re.MULTILINE)
    assert options == "py::multiple_interpreters::not_supported()"
    importlib.import_module("fastfid._core")
    assert getattr(sys, "_is_gil_enabled", lambda: True)()
