"""A connection to Ray for the time of one search: an embedded one, or a cluster that is looked over first."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import math
import os
import re
import shutil
import signal
import socket
import tempfile
import threading
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stabletune.config import Resources
from stabletune.errors import ResourceError
from stabletune.records import TrialSpec
from stabletune.study.executors.packing import pack

GIB = 2.0**30
SECONDS_TO_ANSWER = 60.0
SECONDS_TO_KNOCK = 10.0
ROUNDING = 1e-6
_OF_WORKERS = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}  # a trial without a GPU must not see any
_ENVIRONMENT = {
    **_OF_WORKERS,
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "86400",
}


@dataclasses.dataclass(frozen=True)
class Session:
    """Where Ray may write what is thrown away, and the folder whose files were sent to other machines, if any."""

    scratch: Path
    sent_folder: Path | None


@contextlib.contextmanager
def ray_session(resources: Resources, workload: Path | None) -> Iterator[Session]:
    """Connect, and leave again; an embedded Ray is shut down with it.

    Args:
        resources: names the address.
        workload: the user's file, whose folder a cluster is sent; None where the workload is installed.

    Raises:
        ResourceError: there is no cluster at the address, a node lacks this version of stabletune, or the folder is
            too large to send.
    """
    os.environ.update({name: value for name, value in _ENVIRONMENT.items() if name not in os.environ})
    import ray

    scratch = Path(tempfile.mkdtemp(prefix="stabletune-ray-"))
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "configure_logging": True}
    sent = None
    try:
        if resources.address == "local":
            options |= {"address": "local", "include_dashboard": False, "object_store_memory": 256 * 1024**2}
        else:
            options["address"] = resources.address
            environment: dict[str, Any] = {"env_vars": _OF_WORKERS}
            sent = sent_with_the_job() if workload is not None else None
            if workload is not None and sent is None:
                pack(workload.parent, scratch / "sent")
                environment["working_dir"] = str(scratch / "sent")
                sent = workload.parent
            options["runtime_env"] = environment
        with _quiet():
            _connect(ray, options)
            try:
                with _session_folder_of_a_client(scratch):
                    if resources.address != "local":
                        _check_nodes(ray)
                    yield Session(scratch, sent)
            finally:
                ray.shutdown()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """A dead worker becomes a record: Tune would log its traceback, and Ray tell of it on stdout, amid the result."""
    from ray._private.ray_logging import stderr_deduplicator, stdout_deduplicator

    tune = logging.getLogger("ray.tune")
    level, skipped = tune.level, stdout_deduplicator.skip_re
    tune.setLevel(logging.CRITICAL)
    stdout_deduplicator.skip_re = stderr_deduplicator.skip_re = re.compile(".")
    try:
        yield
    finally:
        tune.setLevel(level)
        stdout_deduplicator.skip_re = stderr_deduplicator.skip_re = skipped


def relocated(spec: TrialSpec, sent_folder: Path | None) -> TrialSpec:
    """The spec with the workload's file as it lies on this machine; called in a worker."""
    path = spec.workload.path
    if path is None or sent_folder is None or not Path(path).is_relative_to(sent_folder):
        return spec
    workload = dataclasses.replace(spec.workload, path=str(_started_in() / Path(path).relative_to(sent_folder)))
    return dataclasses.replace(spec, workload=workload)


@functools.cache
def _started_in() -> Path:
    """Where a worker begins, before user code may leave it: the folder in which its node put the files sent."""
    return Path.cwd()


def refuse_if_lacking(resources: Resources, available: Mapping[str, float]) -> None:
    """Raise ResourceError if a trial asks for more than there is: it would wait for ever, without an error."""
    wanted = {
        "cpus_per_trial": (resources.cpus_per_trial, available.get("CPU", 0.0), "CPUs"),
        "gpus_per_trial": (resources.gpus_per_trial, available.get("GPU", 0.0), "GPUs"),
        "memory_gib_per_trial": (
            resources.memory_gib_per_trial or 0.0,
            available.get("memory", math.inf) / GIB,
            "GiB of memory",
        ),
    }
    for key, (amount, there, unit) in wanted.items():
        if amount > there:
            raise ResourceError(
                f"resources.{key}: must be at most the {there:.4g} {unit} there are, "
                f"but got {amount:g}. Ask for {there:.4g} or fewer, or name a cluster in resources.address."
            )


def alive_nodes() -> list[dict[str, Any]]:
    """What Ray knows of each node of the cluster that lives."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"]]


def count_slots(resources: Resources, nodes: Sequence[Mapping[str, float]]) -> int:
    """How many trials run at once on nodes with these resources, each on one node.

    Raises:
        ResourceError: none does.
    """
    refuse_if_lacking(resources, {name: max(n.get(name, 0.0) for n in nodes) for n in nodes for name in n})
    wanted = {
        "CPU": resources.cpus_per_trial,
        "GPU": resources.gpus_per_trial,
        "memory": (resources.memory_gib_per_trial or 0.0) * GIB,
    }
    slots = sum(
        min(int(node.get(name, 0.0) / amount + ROUNDING) for name, amount in wanted.items() if amount) for node in nodes
    )
    return min(slots, resources.max_concurrent or slots)


def sent_with_the_job() -> Path | None:
    """The folder that Ray's job API has put on every node, as it lies here; None outside of a job that has one."""
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    package = job.get("runtime_env", {}).get("working_dir")
    if package is None:
        return None
    here = Path.cwd()  # or below it
    return next((folder for folder in (here, *here.parents) if folder.name == Path(package).stem), here)


def _connect(ray: Any, options: dict[str, Any]) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    try:
        _knock(options["address"])
        ray.init(**options)
    except Exception as error:  # of a node that dies while it starts Ray raises this very class
        ray.shutdown()
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        if options["address"] == "local":
            raise ResourceError(
                f"resources.address: Ray must start on this machine, but gave: {reason}. "
                "Try again; a search that has begun goes on with --resume."
            ) from error
        raise ResourceError(
            f"resources.address: must be a Ray cluster that answers, but {options['address']!r} gave: {reason}. "
            "Start one (`ray start --head`), or set local. One that asks for a token wants RAY_AUTH_MODE=token here."
        ) from error
    if callable(handler) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray has put its own in the place of the one that interrupts a search


def _knock(address: str) -> None:
    """Raise OSError where no machine is, or none listens: Ray would ask for minutes, and could not be interrupted."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS_TO_KNOCK).close()


def _check_nodes(ray: Any) -> None:
    """Ask each node that runs trials for its version of stabletune: trials there would all fail without."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def installed() -> str | None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("stabletune")
        except PackageNotFoundError:
            return None

    here = installed()
    for node in alive_nodes():
        if not node["Resources"].get("CPU"):
            continue
        strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ask = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=strategy)(installed)
        try:
            found = ray.get(ask.remote(), timeout=SECONDS_TO_ANSWER)
        except Exception as error:
            raise ResourceError(
                f"resources.address: every node must run Python code of this version, but node "
                f"{node['NodeManagerAddress']} gave {type(error).__name__}. Use the same Python and Ray on all nodes."
            ) from error
        if found != here:
            raise ResourceError(
                f"resources.address: every node must have stabletune {here}, but node "
                f"{node['NodeManagerAddress']} has {found or 'none'}. Install it there."
            )


@contextlib.contextmanager
def _session_folder_of_a_client(scratch: Path) -> Iterator[None]:
    """Give Tune's controller a session folder where a ray:// client, which is no node, has none.

    Tune would move the controller to the cluster otherwise, away from the study and its files.
    """
    import ray._private.worker as worker
    from ray.util.client import ray as client

    if not client.is_connected():  # type: ignore[no-untyped-call]
        yield
        return
    worker._global_node = types.SimpleNamespace(  # type: ignore[assignment]
        get_session_dir_path=lambda: str(scratch)
    )
    try:
        yield
    finally:
        worker._global_node = None
