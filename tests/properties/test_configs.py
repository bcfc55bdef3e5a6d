"""Whatever a config file holds, reading it gives a config or a ConfigError, and nothing else."""

import copy
import string

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stabletune.config import Config, load_config
from stabletune.errors import ConfigError

VALID = {
    "version": 1,
    "name": "mine",
    "workload": "quadratic",
    "workload_args": {"jitter": 0.1},
    "seed": 0,
    "search_space": {
        "lr": {"low": 1e-3, "high": 1e-1, "scale": "log"},
        "beta2": {"low": 0.9, "high": 0.999, "scale": "log_one_minus"},
        "max_grad_norm": {"choices": [None, 1.0]},
    },
    "baseline": {"lr": 1e-3, "beta2": 0.999},
    "budget": {"trials": 6, "trial_steps": 60, "full_steps": 150, "confirm_seeds": 2, "trial_minutes": 1},
    "objective": {"metric": "final_loss", "source": "train", "target": None, "tradeoff": False},
    "schedule": {"name": "constant", "warmup_ratio": 0.0},
    "signals": {"overhead": 0.15, "every": None, "shadow_beta2": [0.9]},
    "resources": {"cpus_per_trial": 1, "gpus_per_trial": 0, "address": "local"},
    "sampler": "tpe",
    "storage": None,
    "warm_start": [],
    "tensorboard": False,
}
VALID_CONTENT = yaml.safe_dump(VALID).encode()
ODD = [".inf", ".nan", "-.inf", "1e999", "0x1F", "1_000", "~", "null", "yes", "2001-01-01", "!!binary aGk=", "&a [*a]"]
UNREADABLE = [
    "2001-02-30",
    "2001-01-01 25:00:00",
    "1" * 5000,
    '"\\ud800"',
    "? [a]",
    "<<: 1",
    "[" * 40,
    "*a",
    "1:99:99",
]
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.text(string.printable, max_size=12)
    | st.sampled_from(["lr", "log", "local", "ray://", "tpe", "../x", "$HOME", "${NO_SUCH}", "<b>", "quadratic:build"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | scalars, inner, max_size=3),
    max_leaves=6,
)


def paths_of(data, above=()):
    for key, value in data.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from paths_of(value, (*above, key))


PATHS = list(paths_of(VALID))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("configs")


def answer(folder, content, overrides=()):
    """What reading gives: the config, or the mistakes; any other exception is the test's failure."""
    path = folder / "config.yaml"
    path.write_bytes(content)
    try:
        return load_config(path, overrides=overrides)
    except ConfigError as error:
        return error.problems


def is_clear(found):
    """Whether it is a config, or at least one sentence each of which says something and shows no trace."""
    if isinstance(found, Config):
        return True
    return bool(found) and all(is_sentence(problem) for problem in found)


def is_sentence(problem):
    """Whether it says where, what and what to do, without a trace."""
    where, colon, said = problem.partition(": ")
    is_placed = where.partition("config.yaml")[1] or where.startswith("--set")
    return bool(is_placed and colon) and said.endswith((".", "?")) and "Traceback" not in said


def names(found, key):
    """Whether it is a config, or a mistake names the key; of bytes that are no text none can."""
    return isinstance(found, Config) or any(key in problem or "not UTF-8" in problem for problem in found)


def changed(path, value, *, is_removed):
    data = copy.deepcopy(VALID)
    place = data
    for key in path[:-1]:
        place = place[key]
    if is_removed:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return data


@given(content=st.binary(max_size=200))
def test_any_bytes(folder, content):
    assert is_clear(answer(folder, content))


@given(content=st.text(alphabet=string.printable + "éλ\u2028\x00", max_size=200))
def test_any_text(folder, content):
    assert is_clear(answer(folder, content.encode("utf-8", "surrogatepass")))


@given(path=st.sampled_from(PATHS), value=values, is_removed=st.booleans())
def test_a_valid_config_with_one_part_changed(folder, path, value, is_removed):
    data = changed(path, value, is_removed=is_removed)
    found = answer(folder, yaml.safe_dump(data, allow_unicode=True).encode("utf-8", "surrogatepass"))
    assert is_clear(found) and names(found, path[0])


@given(path=st.sampled_from(PATHS), text=st.sampled_from(ODD + UNREADABLE) | st.text(string.printable, max_size=10))
def test_a_valid_config_with_raw_text_for_a_value(folder, path, text):
    marked = yaml.safe_dump(changed(path, "MARK", is_removed=False), default_flow_style=None)
    assert is_clear(answer(folder, marked.replace("MARK", text, 1).encode("utf-8", "surrogatepass")))


@given(cut=st.integers(0, 900), junk=st.binary(max_size=4))
def test_a_config_that_was_cut_and_has_junk_in_it(folder, cut, junk):
    content = VALID_CONTENT
    assert is_clear(answer(folder, content[:cut] + junk))
    assert is_clear(answer(folder, content[:cut] + junk + content[cut:]))


@given(
    override=st.text(string.printable, max_size=30)
    | st.builds("{}={}".format, st.sampled_from(PATHS).map(".".join), scalars)
    | st.builds("{}.{}={}".format, *[st.sampled_from(PATHS).map(".".join)] * 2, scalars)
)
def test_any_override(folder, override):
    assert is_clear(answer(folder, VALID_CONTENT, [override]))
