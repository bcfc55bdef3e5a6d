"""Samplers: one file each, with ``build(seed) -> optuna sampler``; named in the config by the file's name.

``READS_JUDGED`` says whether it is shown the finished trials as they are judged at each proposal; a sampler that
ignores them, or that needs what it stored with earlier proposals, reads the study itself.
"""

from __future__ import annotations

import importlib

import optuna


def load_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler of that name, seeded."""
    return importlib.import_module(f"{__name__}.{name}").build(seed)  # type: ignore[no-any-return]


def load_judging_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler | None:
    """The sampler of that name if it is shown the finished trials anew at each proposal; else None."""
    reads_judged: bool = importlib.import_module(f"{__name__}.{name}").READS_JUDGED
    return load_sampler(name, seed) if reads_judged else None
