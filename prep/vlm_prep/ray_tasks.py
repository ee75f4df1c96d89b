"""Tasks over a Ray cluster (``--engine ray``): the same tasks give the same parts and the same bytes, on many machines.

Ray listens on all interfaces of its machines, and whoever reaches it can run code there. So it is imported only here,
and only when a user asks for it; a build joins a cluster that runs already and never starts one.
"""

import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from vlm_catalogs.errors import ConfigError, StorageError, UserError

KNOCK_SECONDS = 5.0

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[Result]):
    """What comes back from a node: Ray would wrap an exception in one of its own."""

    result: Result | None = None
    error: UserError | None = None


@contextmanager
def joined_cluster() -> Iterator[int]:
    """Within it this process belongs to the running cluster; gives how many CPUs that has. Raises ConfigError."""
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "engine 'ray': ray is not installed here; pip install 'vlm-mix[ray]', or take engine 'local'"
        ) from error
    address = os.environ.get("RAY_ADDRESS", "auto")
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        where = "is running here" if address == "auto" else f"answers at RAY_ADDRESS {address!r} ({error})"
        raise ConfigError(
            f"engine 'ray': no cluster {where}; start one on trusted machines (ray start --head, then ray start "
            "--address=HEAD:6379 on the others), name it in RAY_ADDRESS, or take engine 'local'"
        ) from error
    try:
        cpus: float = ray.cluster_resources().get("CPU", 1)  # type: ignore[no-untyped-call]
        yield max(1, int(cpus))
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError or ValueError for an address where nobody listens: Ray would try for minutes."""
    if address == "auto":
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        raise ValueError("expected HOST:PORT")
    socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()


def run_on_ray(
    function: Callable[[Task], Result], tasks: Sequence[Task], *, num_workers: int, on_done: Callable[[Task], None]
) -> list[Result]:
    """As ``workers.run_tasks``, over the cluster that was joined, ``num_workers`` tasks at once.

    Ray starts a task again whose worker or node is lost.
    """
    import ray

    perform = ray.remote(num_cpus=1)(_perform)
    folder = str(Path.cwd())
    waiting = deque(range(len(tasks)))
    running: dict[Any, int] = {}
    outcomes: dict[int, Result] = {}
    try:
        while waiting or running:
            while waiting and len(running) < num_workers:
                place = waiting.popleft()
                running[perform.remote(folder, function, tasks[place])] = place
            (done,), _ = ray.wait(list(running), num_returns=1)
            place = running.pop(done)
            outcomes[place] = _result(ray.get(done))
            on_done(tasks[place])
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError) as error:
        raise StorageError("a Ray worker was lost more than three times, often for lack of memory") from error
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
    return [outcomes[place] for place in range(len(tasks))]


def _perform(folder: str, function: Callable[[Any], Any], task: Any) -> Outcome[Any]:
    """On a node: the task in the working directory of the build, which paths in it may be relative to."""
    try:
        os.chdir(folder)
    except OSError as error:
        return Outcome(
            error=StorageError(
                f"{folder}: not there on {socket.gethostname()} ({error.strerror}); the working directory, sources, "
                "the shards and the model must lie where every node of the cluster sees them under the same path"
            )
        )
    try:
        return Outcome(result=function(task))
    except UserError as error:
        return Outcome(error=error)


def _result(outcome: Outcome[Result]) -> Any:
    if outcome.error is not None:
        raise outcome.error
    return outcome.result
