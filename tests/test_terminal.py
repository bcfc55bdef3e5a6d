import io

import numpy as np
import pytest
from rich.console import Console

from stabletune.records import Measurement, Progress, TrialResult
from stabletune.terminal import SignalLines, trial_summary
from tests.trial.specs import quadratic_spec


@pytest.mark.parametrize(("value", "shown"), [(None, ""), (12.345, "sharpness 12.3")])
def test_raw_sharpness_is_shown_where_it_was_read(value, shown):
    text = io.StringIO()
    SignalLines(Console(file=text, width=200), seconds=0.0).on_progress(
        Progress(
            number=0, purpose="search", seed=0, step=1, steps=9, loss=0.5, sharpness_ratio=0.75, v_hat_staleness=2.0,
            sharpness=value,
        )
    )  # fmt: skip
    assert text.getvalue().rstrip().endswith(f"v_hat_staleness 2{shown and ', '}{shown}")
    reading = Measurement(step=1, loss=0.5, lr=0.1, sharpness_ratio=0.75, v_hat_staleness=2.0, sharpness=value)
    result = TrialResult(
        spec=quadratic_spec(), status="completed", reason="", losses=np.ones(20), measurements=(reading,)
    )
    assert trial_summary(result).endswith(f"v_hat_staleness 2{shown and ' '}{shown}")
