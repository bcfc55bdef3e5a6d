"""What a search of many trials, or of many at once, does less often: fits of its models, and giving up."""

from __future__ import annotations

MOST_FAILURES_IN_A_ROW = 5
ORDINARY = 200
BETWEEN_FITS, SHARE_OF_RUNNING = 10, 0.1


def trials_between_fits(n_finished: int, n_running: int) -> int:
    """How many trials end between two fits of the models: one in a search of up to 200 trials.

    Beyond that ten, or a tenth of those that run, but no more than a quarter of those that have ended. The models see
    a hundred trials, and a proposal lacks every trial that runs: fits that are so much older hide little more. What
    ends in between is judged by the last fit and shown to the sampler at once.
    """
    if n_finished + n_running <= ORDINARY:
        return 1
    return max(1, min(max(BETWEEN_FITS, round(SHARE_OF_RUNNING * n_running)), n_finished // 4))


def failures_in_a_row(n_running: int) -> int:
    """How many trials must fail in a row to end a search: five, or a tenth of those that run at once.

    Of hundreds that began at once, those that fail end first.
    """
    return max(MOST_FAILURES_IN_A_ROW, round(SHARE_OF_RUNNING * n_running))
