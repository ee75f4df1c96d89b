"""Tasks over worker processes: errors keep their message, and no worker outlives the build."""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, connection, get_context, parent_process
from typing import Protocol, TypeVar

from vlm_catalogs.errors import StorageError

Task = TypeVar("Task")
Result = TypeVar("Result")


class RunTasks(Protocol):
    """What runs tasks: the processes of ``run_tasks``, or a cluster."""

    def __call__(
        self,
        function: Callable[[Task], Result],
        tasks: Sequence[Task],
        *,
        num_workers: int,
        on_done: Callable[[Task], None],
    ) -> list[Result]:
        """As ``run_tasks``."""
        ...


def num_processes(asked: int, *, is_small: bool) -> int:
    """Worker processes: as asked, else one for small work, else one for each core that this process may use."""
    return asked or (1 if is_small else len(os.sched_getaffinity(0)))


def run_tasks(
    function: Callable[[Task], Result], tasks: Sequence[Task], *, num_workers: int, on_done: Callable[[Task], None]
) -> list[Result]:
    """What ``function`` gives for every task, in the order of the tasks; in this process when one worker is enough.

    The first error stops the rest and is raised here; tasks that are done stay done.
    """
    if num_workers == 1 or len(tasks) <= 1:
        results = []
        for task in tasks:
            results.append(function(task))
            on_done(task)
        return results
    pool = ProcessPoolExecutor(min(num_workers, len(tasks)), mp_context=get_context("spawn"), initializer=_start_worker)
    try:
        futures = {pool.submit(function, task): task for task in tasks}
        for future in as_completed(futures):
            future.result()
            on_done(futures[future])
        return [future.result() for future in futures]
    except BrokenProcessPool as error:
        message = "a worker process was killed, often for lack of memory; try fewer: --num-workers 1"
        raise StorageError(message) from error
    except BaseException:
        for worker in active_children():  # what they have staged is thrown away: nothing is lost by not waiting
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """Leave Ctrl-C to the main process, and end when it is gone (a killed one cannot say so)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
