"""What a cause finds: the numbers that decided, and the one change that would help."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Finding:
    """Evidence and remedy, each a sentence."""

    evidence: str
    remedy: str
