"""What a run shows while it trains: one live panel on a terminal, a plain line now and then elsewhere."""

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from vlm_catalogs.console import fact

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

SHOWN = {
    "train/loss": ("loss", "{:.4f}"),
    "train/lr": ("learning rate", "{:.3g}"),
    "train/grad_norm": ("gradient norm", "{:.3f}"),
    "train/useful_tokens_per_second": ("useful tokens/s", "{:,.0f}"),
    "train/padding_share": ("padding", "{:.1%}"),
    "data/wait_seconds": ("waited for data", "{:.2f} s"),
    "train/mfu": ("MFU", "{:.1%}"),
    "train/peak_memory_bytes": ("memory", "{:,.0f} MB"),
    "train/seconds_left": ("time left", "{}"),
}
MEGABYTE = 1e6


class LiveView:
    """Shows the metrics of each step; a context manager. Lines go to stderr."""

    def __init__(self, *, total_steps: int, log_interval: int) -> None:
        self._total_steps = total_steps
        self._log_interval = log_interval
        self._shown_first = False
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, metrics: Mapping[str, Any]) -> None:
        """Show one step; without a terminal the first, the last and every ``log_interval``-th."""
        if self._live is not None:
            self._live.update(self._panel(metrics))
            return
        step = metrics["step"]
        if not self._shown_first or step % self._log_interval == 0 or step == self._total_steps:
            self._shown_first = True
            fact(plain_line(metrics, total_steps=self._total_steps))

    def _panel(self, metrics: Mapping[str, Any]) -> "Table":
        from rich.table import Table

        table = Table(title=f"step {metrics['step']}/{self._total_steps}, epoch {metrics['epoch']}", show_header=False)
        for name, text in _values(metrics):
            table.add_row(name, text)
        return table


def plain_line(metrics: Mapping[str, Any], *, total_steps: int) -> str:
    """One step as one line."""
    values = ", ".join(f"{name} {text}" for name, text in _values(metrics))
    return f"step {metrics['step']}/{total_steps}: {values}"


def _values(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    named = [(name, form.format(_readable(key, metrics[key]))) for key, (name, form) in SHOWN.items() if key in metrics]
    losses = [(key, f"{value:.4f}") for key, value in metrics.items() if key.startswith("loss/")]
    return [*named, *losses]


def _readable(key: str, value: float) -> float | str:
    if key == "train/peak_memory_bytes":
        return value / MEGABYTE
    if key != "train/seconds_left":
        return value
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
