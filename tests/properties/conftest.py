"""How many examples: few by default, 20,000 each with ``--hypothesis-profile=long`` (``make fuzz``)."""

from hypothesis import HealthCheck, settings

_common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]}
settings.register_profile("short", max_examples=150, derandomize=True, **_common)
settings.register_profile("long", max_examples=20_000, **_common)
settings.load_profile("short")
