"""A question of the user that Ctrl-C ends: DuckDB looks for signals between its tasks, and one task may have no end."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import duckdb

Answer = TypeVar("Answer")


def answered(index: duckdb.DuckDBPyConnection, ask: Callable[[], Answer]) -> Answer:
    """What ``ask`` returns, which asks ``index`` in a thread; a KeyboardInterrupt here stops it there."""
    with ThreadPoolExecutor(1, thread_name_prefix="question") as pool:
        answer = pool.submit(ask)
        try:
            return answer.result()
        except KeyboardInterrupt:
            index.interrupt()
            raise
