"""The skips that tests/conftest.py accepts."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

# By its path: a plain import would find tests/peers/conftest.py where that was loaded first.
_SPEC = importlib.util.spec_from_file_location("conftest_of_tests", Path(__file__).with_name("conftest.py"))
conftest = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(conftest)


def outcome(reason, marks=()):
    report = SimpleNamespace(skipped=True, outcome="skipped", longrepr=("test_x.py", 3, f"Skipped: {reason}"))
    item = SimpleNamespace(get_closest_marker=lambda name: name if name in marks else None)
    hook = conftest.pytest_runtest_makereport(item, None)
    next(hook)
    with pytest.raises(StopIteration) as end:
        hook.send(report)
    assert end.value.value is report
    return report.outcome


@pytest.mark.parametrize(
    ("environment", "reason", "marks", "expected"),
    [
        ({}, "no peer", (), "skipped"),
        ({}, "no CUDA device", ("cuda",), "skipped"),
        ({"CI": "true"}, "no peer", (), "failed"),
        ({"CI": "true"}, "no CUDA device", ("cuda",), "skipped"),
        ({"FASTFID_REQUIRE_CUDA": "1"}, "no CUDA device", ("cuda",), "failed"),
        ({"FASTFID_REQUIRE_CUDA": "1"}, "no peer", (), "skipped"),
        # About machines without a device, on one that has one.
        ({"CI": "true"}, "there is a CUDA device", (), "skipped"),
        ({"CI": "true", "FASTFID_REQUIRE_CUDA": "1"}, "there is a CUDA device", ("cuda",), "skipped"),
        ({"CI": "true"}, "there is a CUDA device but no peer", (), "failed"),
    ],
)
def test_a_skip_is_accepted_or_a_failure(monkeypatch, environment, reason, marks, expected):
    monkeypatch.setattr(conftest, "IS_CI", "CI" in environment)
    monkeypatch.delenv("FASTFID_REQUIRE_CUDA", raising=False)
    if required := environment.get("FASTFID_REQUIRE_CUDA"):
        monkeypatch.setenv("FASTFID_REQUIRE_CUDA", required)
    assert outcome(reason, marks) == expected
