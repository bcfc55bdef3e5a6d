"""What a search that proved nothing tells the user to change."""

import pytest

from stabletune.config import load_config
from stabletune.study.proof.outcome import explain_failure

BAD = ("bad batch", "Drop it.")


@pytest.mark.parametrize(
    ("diagnoses", "advice"),
    [
        ([BAD, ("unexplained", "Look."), BAD], "Of 3 trials that spiked, 2 were diagnosed as bad batch. The first of"),
        ([("unexplained", "Look.")], "Lower lr.low or beta2.low in the search space"),
        ([], "Lower lr.low or beta2.low in the search space"),
    ],
)
def test_where_no_trial_stayed_clean_the_commonest_cause_says_what_to_do(write_config, diagnoses, advice):
    message = explain_failure(load_config(write_config()), [], [], n_sent=0, all_diverged=False, diagnoses=diagnoses)
    assert message.startswith("No trial completed without a spike") and advice in message
