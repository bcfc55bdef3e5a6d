"""What a stopper says: how the trial ends, in one sentence with the value and the limit that decided."""

from __future__ import annotations

import dataclasses

from stabletune.records import Status


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The end of a trial."""

    status: Status
    reason: str
