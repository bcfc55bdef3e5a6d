"""The whole recommendation as one JSON object: settings, evidence and provenance."""

from __future__ import annotations

import json

from stabletune.records import finite_or_none
from stabletune.results.recommendation import Recommendation


def export(recommendation: Recommendation) -> str:
    """The content of ``recommended.yaml`` as JSON; numbers that JSON cannot say are null."""
    return json.dumps(finite_or_none(recommendation.to_dict()), indent=2, allow_nan=False)
