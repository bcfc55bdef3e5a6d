"""A search over a workload that cannot be differentiated twice."""

import textwrap

import pytest

from tests.study.running import rows_of, run
from tests.trial.test_without_curvature import ONCE


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_without_any_curvature_ends_with_a_recommendation_and_a_report(write_config, tmp_path, sampler):
    (tmp_path / "once.py").write_text(textwrap.dedent(ONCE))
    config = write_config(
        ("workload: quadratic", "workload: once.py:build"),
        ("workload_args:", "# workload_args:"),
        ("budget:", f"sampler: {sampler}\n    budget:".replace("    ", "")),
    )
    out = tmp_path / "out"
    result = run(config, out)
    assert result.ending == "recommended"
    assert result.recommendation.evidence["max_sharpness_ratio"] is None
    rows = rows_of(out / "trials.csv") + rows_of(out / "confirmations.csv")
    assert all(row["max_sharpness_ratio"] == "" for row in rows)
    assert all("without curvature since step 10:" in row["reason"] for row in rows)
    assert not any(row["status"] == "failed" for row in rows)
    assert "without curvature since step 10:" in (out / "report.html").read_text()
