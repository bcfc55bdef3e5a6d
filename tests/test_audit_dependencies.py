import pytest

from tests.audit_dependencies import NoData, direct_names, judge

CLEAN = {"name": "numpy", "version": "2.0", "vulns": []}
SKIPPED = {"name": "torch", "skip_reason": "Dependency not found on PyPI and could not be audited: torch (2.13.0+cpu)"}
VULNS = [{"id": "PYSEC-2026-1", "fix_versions": ["3.1"], "aliases": [], "description": "no"}]


def test_packages_of_the_extras_count_and_tools_do_not():
    asked = ["PyYAML", "ray[tune]>=2.60", 'prometheus_client; extra == "monitor"', "ruff; extra == 'dev'"]
    assert direct_names(asked) == {"pyyaml", "ray", "prometheus-client"}


def test_a_vulnerable_package_fails_only_if_stabletune_asks_for_it():
    package = {"name": "Py_YAML", "version": "3.0", "vulns": VULNS}
    said, has_failed = judge([CLEAN, package], {"numpy", "py-yaml"})
    assert has_failed
    assert said[1] == "audit: Py_YAML 3.0, asked for by stabletune: PYSEC-2026-1 (mended in 3.1)"
    said, has_failed = judge([CLEAN, package], {"numpy"})
    assert not has_failed
    assert "of others, not failed for: PYSEC-2026-1" in said[1]


def test_what_was_not_looked_up_is_named_and_a_report_without_any_data_is_none():
    said, has_failed = judge([CLEAN, SKIPPED], {"numpy", "torch"})
    assert (said[-1], has_failed) == ("audit: NOT LOOKED UP: torch", False)
    for nothing in ([SKIPPED], []):
        with pytest.raises(NoData):
            judge(nothing, {"torch"})
