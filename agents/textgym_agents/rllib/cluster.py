"""Connecting to Ray, and whether it is large enough for a run."""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

# A socket's path is 107 bytes at most, of which Ray needs about 60.
_LONGEST_FOLDER = 45
# Bytes for what processes send each other: at least, and for each weight of 4 bytes (those on their
# way from the learner, those of the iteration before, and as much again for texts).
_LEAST_STORE, _STORE_PER_WEIGHT = 200 * 2**20, 16


def connect(
    address: str | None = None,
    *,
    num_cpus: int | None = None,
    temp_dir: str | os.PathLike[str] | None = None,
    object_store_memory: int | None = None,
) -> None:
    """Connect to a cluster, or start one on this machine; nothing if connected already.

    Without a dashboard and without the statistics that Ray sends home.

    Args:
        address: ``"auto"`` or ``"host:6379"`` of a running cluster; None starts one here, which
            the other arguments describe.
        num_cpus: logical ones; None counts those of the machine.
        temp_dir: where Ray keeps logs and sockets; None is Ray's own choice, ``/tmp/ray``.
        object_store_memory: bytes for what processes send each other, weights above all; None is
            Ray's own choice, 30 % of the memory.

    Raises:
        ValueError: for arguments that only a cluster started here can have, and a path too long.
        ConnectionError: nobody answers at `address`.
    """
    if ray.is_initialized():
        return
    keep_private(new=address is None)
    given = {
        "num_cpus": num_cpus,
        "_temp_dir": None if temp_dir is None else str(Path(temp_dir).resolve()),
        "object_store_memory": object_store_memory,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if address is not None and given:
        raise ValueError(
            f"`{sorted(given)[0].lstrip('_')}` is for a cluster started here; {address} was "
            "started with its own. Give it to `ray start` there."
        )
    if len(given.get("_temp_dir", "")) > _LONGEST_FOLDER:
        raise ValueError(
            f"`temp_dir` must be at most {_LONGEST_FOLDER} characters long, because sockets lie in "
            f"it, got {given['_temp_dir']!r}."
        )
    if address is not None:
        _check_reachable(address)
    options: dict[str, Any] = given if address else {**given, "include_dashboard": False}
    ray.init(address=address, log_to_driver=False, logging_level="warning", **options)


def _check_reachable(address: str) -> None:
    """Ray itself would try for minutes, and then say little."""
    host, _, port = address.rpartition(":")
    if "/" in host or not port.isdecimal():  # `auto`, and addresses of other kinds
        return
    try:
        socket.create_connection((host, int(port)), timeout=10.0).close()
    except OSError as error:
        raise ConnectionError(
            f"nobody answers at {address} ({error}). Start Ray there with `ray start --head`, "
            "or leave the address out to start one here."
        ) from error


@contextmanager
def connected(
    config: AlgorithmConfig, address: str | None = None, *, parameters: int = 0
) -> Iterator[None]:
    """A cluster for `config` while entered: that at `address`, or one on this machine alone.

    One on this machine counts with as many CPUs as `config` needs, keeps its files in a temporary
    folder, and leaves nothing behind. Who is connected already stays so.

    Args:
        config: from `rllib_config`.
        address: as in `connect`.
        parameters: of the model, whose weights pass through the object store.

    Raises:
        ValueError: the cluster is too small for `config`.
    """
    if ray.is_initialized():
        check_cluster(config)
        yield
        return
    with tempfile.TemporaryDirectory(prefix="tg", ignore_cleanup_errors=True) as folder:
        if address is None:
            connect(
                num_cpus=max(os.cpu_count() or 1, int(needed(config)["CPU"])),
                temp_dir=folder,
                object_store_memory=max(_LEAST_STORE, _STORE_PER_WEIGHT * parameters),
            )
        else:
            connect(address)
        try:
            check_cluster(config)
            yield
        finally:
            ray.shutdown()


def keep_private(*, new: bool) -> None:
    """Set what Ray reads from the environment, before it starts.

    No statistics are sent home, and a `new` cluster is open to this process and its children alone,
    by a token that is not written into the home directory.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if new:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def needed(config: AlgorithmConfig) -> dict[str, float]:
    """The logical CPUs and GPUs that `config` takes."""
    runners, learners = config.num_env_runners, config.num_learners
    per_learner = config.num_cpus_per_learner
    if per_learner == "auto":
        per_learner = 1
    cpus = runners * config.num_cpus_per_env_runner + learners * per_learner
    gpus = runners * config.num_gpus_per_env_runner + learners * config.num_gpus_per_learner
    return {"CPU": float(cpus), "GPU": float(gpus)}


def check_cluster(config: AlgorithmConfig) -> None:
    """Check that the cluster can hold all processes of `config`.

    Raises:
        ValueError: it cannot; Ray itself would wait for ever.
    """
    there = ray.cluster_resources()
    for kind, amount in needed(config).items():
        if amount > there.get(kind, 0.0):
            raise ValueError(
                f"{config.num_env_runners} runners and {config.num_learners} learners need "
                f"{amount:g} {kind}s, and the cluster has {there.get(kind, 0.0):g}. Use fewer, add "
                "machines, or start Ray with a larger `num_cpus`: the number is only what it "
                "counts with."
            )
