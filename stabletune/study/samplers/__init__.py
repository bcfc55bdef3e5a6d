"""Samplers: one file each, with ``build(seed) -> optuna sampler``; named in the config by the file's name."""

from __future__ import annotations

import importlib

import optuna


def load_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler of that name, seeded."""
    return importlib.import_module(f"{__name__}.{name}").build(seed)  # type: ignore[no-any-return]
