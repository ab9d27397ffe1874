"""Dependencies point one way, heavy packages are imported only where they are needed, files and functions are short.

DEVELOPING.md describes these rules.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastfid

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "python" / "fastfid"

# Who may import whom inside the package. What all may import comes first.
CELLAR = {
    *("_core", "_version", "at_exit", "errors", "input_spec", "npz", "precisions", "protocols", "provenance"),
    *("_checks", "_console", "_files", "_html", "_progress", "_remote", "mistakes", "tally"),
}
MAY_IMPORT = {
    "at_exit": set(),
    "errors": {"_core"},
    "_console": {"errors"},
    "_checks": set(),
    "_files": set(),
    "_html": {"_console"},
    "_progress": {"_console"},
    "input_spec": {"_core", "_files"},
    "mistakes": {"tally"},
    "npz": {"_files", "_remote"},
    "_remote": {"_files"},
    "precisions": set(),
    "protocols": {"_core"},
    "provenance": set(),
    "tally": set(),
    "reservoir": {"_checks"},
    "segments": {"_core"},
    "statistics": CELLAR | {"reservoir"},
    "references": CELLAR | {"statistics"},
    "sources": CELLAR | {"sources"},
    "extractor": {"sources"},
    "pipeline": CELLAR | {"extractor", "pipeline", "sources"},
    "features": CELLAR | {"extractor", "features", "pipeline", "sources"},
    "record": CELLAR | {"cache"},
    "metrics": CELLAR | {"extractor", "metrics", "record", "reservoir", "segments", "statistics"},
    "options": CELLAR | {"extractor", "cache"},
    "assumptions": CELLAR | {"options", "statistics"},
    "beside": CELLAR | {"statistics"},
    "store": CELLAR | {"cache", "sources"},
    "scale": CELLAR | {"cache", "extractor", "metrics", "pipeline", "reservoir", "scale", "segments", "sources"},
    "evaluation": CELLAR
    | {
        "assumptions",
        "beside",
        "cache",
        "extractor",
        "features",
        "metrics",
        "options",
        "pipeline",
        "record",
        "references",
        "reservoir",
    }
    | {"scale", "sources", "statistics", "store"},
    "batches": CELLAR
    | {"assumptions", "beside", "evaluation", "extractor", "features", "metrics", "options", "pipeline", "reservoir"}
    | {"sources", "statistics"},
    "cache": CELLAR | {"statistics", "sources", "features"},
    "info": CELLAR | {"features"},
    "inspection": CELLAR | {"options", "references", "sources", "statistics", "store"},
    "demo": CELLAR | {"evaluation", "metrics", "features", "statistics", "study"},
    "study": CELLAR | {"evaluation", "extractor", "metrics", "options", "references", "sources", "statistics"},
    "report": CELLAR
    | {"evaluation", "extractor", "inspection", "metrics", "options", "record", "sources", "statistics"},
    "cli": CELLAR
    | {"demo", "evaluation", "features", "info", "inspection", "metrics", "options", "references", "report", "scale"}
    | {"sources", "statistics", "store", "study"},
    "compat": CELLAR
    | {"assumptions", "batches", "beside", "compat", "evaluation", "extractor", "features", "metrics", "pipeline"}
    | {"sources", "statistics"},
    "__main__": {"cli"},
    "__init__": {
        "_core",
        "_version",
        "batches",
        "errors",
        "evaluation",
        "extractor",
        "features",
        "input_spec",
        "metrics",
    }
    | {"statistics"},
    "_version": set(),
}


# A file and a function body, without its docstring, have at most so many lines.
FILE_LINES, BODY_LINES = 600, 60

# What compares within a tolerance, and how many arguments come before it; and the names that tolerances have.
COMPARISONS = {"approx": 1, "assert_allclose": 2, "assert_close": 2, "allclose": 2, "isclose": 2}
TOLERANCES = {"rel", "abs", "rtol", "atol", "rel_tol", "abs_tol", "relative", "tolerance"}
SMALL = 1e-3  # what is compared by < with a number up to this is compared within a tolerance


def modules():
    return sorted(p for p in PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path):
    """(module, is it imported when the file is) for every import in the file."""
    tree = ast.parse(path.read_text())
    lazy = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) not in lazy
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module, id(node) not in lazy
            for alias in node.names:
                yield f"{node.module}.{alias.name}", id(node) not in lazy


def test_every_room_is_in_the_table():
    assert {room(path) for path in modules()} <= set(MAY_IMPORT)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_python_dependencies_point_one_way(path):
    here = room(path)
    siblings = {room(p) for p in modules()} | {"_core"}
    for module, _ in imports(path):
        parts = module.split(".")
        if parts[0] == "fastfid" and len(parts) > 1 and parts[1] in siblings:
            assert parts[1] in MAY_IMPORT[here] | {here}, f"{path.name} imports {module}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_packages_stay_in_their_rooms(path):
    name = path.relative_to(PACKAGE).as_posix()
    for module, eager in imports(path):
        top = module.split(".")[0]
        assert top not in {"scipy", "onnx"}, f"{name}: {module} is no run-time dependency"
        if top == "onnxruntime":
            assert name == "features/session.py"
        if top in {"torch", "torchmetrics", "torchvision"}:
            definitions = name == "features/inception_torch.py" or name.startswith(
                ("compat/", "features/known/networks/")
            )
            assert definitions or not eager, f"{name} imports {module} for everyone"
        if top in {"pyarrow", "datasets", "fsspec"}:
            assert not eager, f"{name} imports {module} for everyone"
        if top in {"skimage", "matplotlib", "jinja2"}:
            assert name in {"demo.py", "report/figures.py", "report/make.py"} or name.startswith("study/")
            assert not eager


def test_the_core_knows_neither_python_nor_cuda():
    for path in sorted((ROOT / "csrc" / "core").iterdir()):
        text = path.read_text()
        includes = re.findall(r'#include [<"]([^">]+)', text)
        foreign = [i for i in includes if re.search(r"pybind11|Python\.h|^cuda|cublas|cusolver|bindings/|host/", i)]
        assert not foreign, f"{path.name} includes {foreign}"
        if path.stem != "blas":
            assert not [i for i in includes if re.search(r"^cblas|lapack", i)], f"{path.name}: BLAS belongs to blas"


def test_the_host_knows_of_the_core_only_its_errors():
    for path in sorted((ROOT / "csrc" / "host").iterdir()):
        ours = re.findall(r'#include "([^"]+)', path.read_text())
        assert not [i for i in ours if not i.startswith("host/") and i != "core/errors.hpp"], path.name


def test_cuda_stays_in_its_folder_and_knows_only_the_core():
    for path in sorted((ROOT / "csrc").rglob("*.?pp")) + sorted((ROOT / "csrc").rglob("*.cu*")):
        includes = re.findall(r'#\s*include [<"]([^">]+)', path.read_text())
        folder = path.parent.name
        if folder != "cuda":
            assert path.suffix in {".cpp", ".hpp"}, f"{path.name}: CUDA code belongs to csrc/cuda"
            cuda = [i for i in includes if re.search(r"^cuda[_.A-Z]|^cu[bs]|^cublas|^nv|device_launch|\.cuh$", i)]
            assert not cuda, f"{folder}/{path.name} includes {cuda}"
        else:
            foreign = [i for i in includes if re.search(r"pybind11|Python\.h|bindings/|cublas|cusolver", i)]
            assert not foreign, f"cuda/{path.name} includes {foreign}"
        if folder == "core":
            assert not [i for i in includes if i.startswith("cuda/")], path.name
        # What the bindings include is compiled without CUDA's headers.
        if folder == "bindings":
            public = [i for i in includes if i.startswith("cuda/")]
            for name in public:
                inner = re.findall(r'#\s*include [<"]([^">]+)', (ROOT / "csrc" / name).read_text())
                assert not [i for i in inner if re.search(r"^cuda[_.A-Z]|\.cuh$|check\.hpp", i)], name


def test_type_checkers_know_the_public_names():
    """They take "from fastfid.x import name as name"; at run time a name is looked up in _HOME."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
    declared = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name, f"{alias.name}: without 'as' it is not handed on"
            declared[alias.name] = node.module.removeprefix("fastfid.")
    assert declared == fastfid._HOME
    assert sorted(fastfid.__all__) == sorted([*declared, "__version__"])


def test_nothing_heavy_is_imported_by_import_fastfid():
    code = (
        "import sys, fastfid, fastfid.cli\n"
        "heavy = {'numpy', 'onnxruntime', 'torch', 'scipy', 'PIL', 'tqdm', 'matplotlib', 'skimage'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_files_are_short():
    files = [*modules(), *(ROOT / "csrc").rglob("*.cpp")]
    assert [str(path) for path in files if len(path.read_text().splitlines()) > FILE_LINES] == []


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_functions_are_short(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body if ast.get_docstring(node) is None else node.body[1:]
            lines = node.end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= BODY_LINES, f"{path.name}: {node.name} has {lines} lines"


def floats(node: ast.AST):
    return [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, float) and n.value]


def given_tolerances(node: ast.AST):
    """What a call, or the defaults of a function, say of how near is near enough."""
    if isinstance(node, ast.Call):
        before = COMPARISONS.get(name_of(node.func))
        names = TOLERANCES if before is None else TOLERANCES | {None}  # None: **
        yield from (keyword.value for keyword in node.keywords if keyword.arg in names)
        yield from node.args[before:] if before is not None else ()
    elif isinstance(node, ast.arguments):
        positional = [*node.posonlyargs, *node.args]
        defaults = [*zip(positional[::-1], node.defaults[::-1], strict=False)]
        for argument, value in [*defaults, *zip(node.kwonlyargs, node.kw_defaults, strict=True)]:
            if argument.arg in TOLERANCES and value is not None:
                yield value


def leaves_it_open(call: ast.Call) -> bool:
    """Is it a library's comparison with a default of the library's, as is NumPy's of rtol beside atol alone?"""
    name, given = name_of(call.func), {keyword.arg for keyword in call.keywords}
    if name not in COMPARISONS or not isinstance(call.func, ast.Attribute) or None in given:
        return False
    by_position = len(call.args) > COMPARISONS[name]
    return not by_position and (not given & TOLERANCES or ("atol" in given and "rtol" not in given))


def name_of(function: ast.expr) -> str:
    return getattr(function, "attr", getattr(function, "id", ""))


def inline_tolerances(tree: ast.AST):
    """The lines that say in numbers, or leave to a library, how near is near enough. 0 is exact, and may stay."""
    for node in ast.walk(tree):
        values = list(given_tolerances(node))
        is_default = isinstance(node, ast.Call) and leaves_it_open(node)
        is_order = isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Lt | ast.LtE | ast.Gt | ast.GtE)
        if is_default or (is_order and any(0 < number <= SMALL for number in floats(node))):
            yield node.lineno
        for value in values:
            if floats(value) or (isinstance(value, ast.Constant) and value.value):
                yield value.lineno


def test_tolerances_have_a_name_and_a_reason():
    table = ROOT / "tests" / "tolerances.py"
    for path in sorted((ROOT / "tests").rglob("*.py")):
        if path != table:
            lines = sorted(set(inline_tolerances(ast.parse(path.read_text()))))
            assert not lines, f"{path.name}, lines {lines}: tests/tolerances.py has every tolerance with its reason"


@pytest.mark.parametrize(
    "line",
    [
        "assert x == pytest.approx(y)",
        "assert x == pytest.approx(y, rel=1e-6)",
        "assert x == approx(y, 1e-6, abs=0)",
        "np.testing.assert_allclose(x, y, rtol=0, atol=1e-9 * scale)",
        "np.testing.assert_allclose(x, y, rtol=0, atol=1)",
        "np.testing.assert_allclose(x, y, atol=EXACT)",
        "torch.testing.assert_close(x, y)",
        "assert math.isclose(x, y, rel_tol=0.1 if n else 0)",
        "assert abs(x - y) < 1e-12 * scale",
        "assert_same(x, y, rel=1e-9)",
        "def assert_same(x, y, rel=1e-9): ...",
        "def assert_same(x, *, y=1, atol=1e-9): ...",
    ],
)
def test_a_tolerance_without_a_name_is_found(line):
    assert list(inline_tolerances(ast.parse(line)))


@pytest.mark.parametrize(
    "line",
    [
        "assert x == pytest.approx(y, rel=EXACT, abs=0)",
        "np.testing.assert_allclose(x, y, rtol=0, atol=27 * EXACT * scale)",
        "np.testing.assert_allclose(x, y, **EXACT)",
        "np.testing.assert_allclose(x, y, rtol=EXACT)",
        "assert abs(x - y) < EXACT",
        "assert x < 0.5",
        "assert_same(x, y)",
        "def assert_same(x, y, rel=EXACT, rtol=0.0): ...",
    ],
)
def test_a_tolerance_with_a_name_is_not(line):
    assert not list(inline_tolerances(ast.parse(line)))


def test_every_tolerance_is_used_and_has_a_reason():
    text = (ROOT / "tests" / "tolerances.py").read_text()
    others = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py") if path.name != "tolerances.py")
    lines = text.splitlines()
    for node in ast.parse(text).body[1:]:
        assert isinstance(node, ast.Assign)
        name = node.targets[0].id
        assert re.search(rf"\b{name}\b", others), f"{name} is used by no test"
        assert "#" in lines[node.lineno - 1] or lines[node.lineno - 2], f"{name} has no reason, nor the line above"


def test_nothing_committed_names_this_machine_or_a_registry():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    pattern = re.compile(r"py(?:pi\.org|thonhosted)|/(?:root|work)/|/home/[a-z]|/tmp/[vwf]/")
    for name in listed:
        path = ROOT / name
        if path.suffix in {".png", ".onnx", ".npz", ".npy"} or not path.is_file():
            continue
        assert not pattern.search(path.read_text(errors="replace")), name
