"""Samplers: one file each, with ``build(seed) -> optuna sampler``; named in the config by the file's name.

``KEEPS_STATE`` says whether the sampler remembers earlier proposals by what it stored with them.
"""

from __future__ import annotations

import importlib

import optuna


def load_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler of that name, seeded."""
    return importlib.import_module(f"{__name__}.{name}").build(seed)  # type: ignore[no-any-return]


def load_judging_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler | None:
    """The sampler of that name if it can be shown the finished trials anew at each proposal; else None."""
    keeps_state: bool = importlib.import_module(f"{__name__}.{name}").KEEPS_STATE
    return None if keeps_state else load_sampler(name, seed)
