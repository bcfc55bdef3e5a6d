"""Every error stabletune raises on purpose.

    StabletuneError
    ├── ConfigError            a config, search space or command argument breaks a rule (all mistakes together)
    ├── OutputFolderError      the output folder holds another search, or lacks what a command needs
    ├── StorageError           the study was lost on the way: its database stays away or refuses, or its journal is gone
    ├── ResourceError          the machine or cluster lacks what a trial asks for
    │   └── ClusterError       the cluster that a search runs on was lost on the way
    ├── WorkloadError          the user's training task cannot be built or does not keep the contract
    │   └── LossFloorError     a loss at or below ``loss_floor``: its logarithm does not exist
    ├── MeasurementError       a signal cannot be measured on this model or optimizer
    ├── FailedTrials           the search cannot go on; carries the traceback of the user's code
    │   ├── BaselineFailed     trial 0 cannot run
    │   └── RepeatedFailures   several trials in a row failed
    ├── JobError               a job of a cluster ended without a result, or its head stopped answering
    └── ExportError            a setting or a format that an exporter does not know

Messages read ``<where>: <rule in the reader's terms>, but got <value>. <remedy>``, and show no password.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# what follows a user and password in a whole URL; an @ in its query that a host could follow is of a password instead
_VALUE = r"[^\s@&=/?#]+=[^\s@&]*(?:@[^\s@&:/?#]*)?"
_PLACE = rf"@[^\s@/?#]*(?:/[^\s@/?#]*)?(?:\?{_VALUE}(?:&{_VALUE})*)?(?!\S)"
_PASSWORDS = (
    re.compile(
        rf"://[^\s:/@?#]*{_PLACE}"
        rf"|(?P<before>(?:://[^\s:/@]*)?:(?!//))(?P<password>[^\s/?#]*(?={_PLACE})|\S*)(?P<after>{_PLACE}|(?=@))"
    ),
    re.compile(r"(?P<before>[?&]\w*password=)(?P<password>[^\s&]*)(?P<after>)"),
)
_FROM_ENVIRONMENT = re.compile(r"\$\{\w+\}")


class StabletuneError(Exception):
    """The root of the tree: catch it to catch everything stabletune raises on purpose."""


class ConfigError(StabletuneError):
    """One or several mistakes in what the user wrote, each a full sentence."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class OutputFolderError(StabletuneError):
    """The output folder cannot be used for what was asked."""


class StorageError(StabletuneError):
    """The database of the study stays away or refuses what is stored, or its journal was taken away."""


class ResourceError(StabletuneError):
    """The machine or cluster lacks what a trial asks for."""


class ClusterError(ResourceError):
    """The cluster that a search runs on was lost on the way."""


class WorkloadError(StabletuneError):
    """The user's training task cannot be built, or breaks the workload contract."""


class LossFloorError(WorkloadError):
    """A loss at or below ``loss_floor``, of which no logarithm exists."""


class MeasurementError(StabletuneError):
    """A signal cannot be measured on this model or optimizer."""


class FailedTrials(StabletuneError):
    """The search cannot go on; ``traceback`` is the user's code's own, or empty."""

    def __init__(self, message: str, traceback: str) -> None:
        self.traceback = traceback
        super().__init__(message)


class BaselineFailed(FailedTrials):
    """Trial 0, the baseline, cannot run."""


class RepeatedFailures(FailedTrials):
    """Several trials in a row failed."""


class JobError(StabletuneError):
    """A job of a cluster ended without a result, or the cluster's head stopped answering; the job may go on."""


class ExportError(StabletuneError):
    """A setting or a format that an exporter does not know."""


def without_password(text: str) -> str:
    """The text with ``***`` for the passwords of URLs in it; one that is all ``${ENV_NAME}`` is none, and stays."""

    def masked(found: re.Match[str]) -> str:
        is_secret = found["password"] and not _FROM_ENVIRONMENT.fullmatch(found["password"])
        return f"{found['before']}***{found['after']}" if is_secret else found[0]

    for pattern in _PASSWORDS:
        text = pattern.sub(masked, text)
    return text


def passwords_in(url: str) -> list[str]:
    """Every password that ``without_password`` hides, and what it falls into where a URL is taken apart wrong."""
    found = [match["password"] for pattern in _PASSWORDS for match in pattern.finditer(url)]
    return [part for password in found if password for part in (password, *re.split("[@:/?#]", password)) if part]
