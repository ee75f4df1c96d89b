"""Steps are read one behind the one that the device is at: their numbers are shown, bad ones dealt with."""

from contextlib import suppress
from types import TracebackType
from typing import Self

from vlm_train.attempt import Run
from vlm_train.bad_steps import BadSteps
from vlm_train.rank_watch import RankWatch
from vlm_train.run_steps import TakenStep, measure_held_out, read_step
from vlm_train.sample_loss import SampleLossLog
from vlm_train.step_reports import StepReports
from vlm_train.validation import HeldOut


class StepReader:
    """Takes the steps of an attempt in their order; a context manager that reads the last of them at its end."""

    def __init__(
        self, run: Run, shown: StepReports | None, lines: SampleLossLog, watch: RankWatch, *, attempt: int
    ) -> None:
        self._run, self._shown, self._lines, self._watch = run, shown, lines, watch
        self._bad_steps = BadSteps(
            config=run.config,
            output_dir=run.output_dir,
            attempt=attempt,
            guard=run.trainer.guard,
            store=run.store,
            ranks=run.ranks,
        )
        self._waiting: TakenStep | None = None
        self.validation_loss: float | None = None
        """Held-out loss after the last step that was read, where it was measured."""

    def add(self, taken: TakenStep) -> None:
        """Read the step before ``taken``, which the device is at by now. Raises as ``read``."""
        before, self._waiting = self._waiting, taken
        if before is not None:
            self._read(before)

    def read(self) -> None:
        """Read all that was taken; measure the held-out loss where it is due. All ranks must call it.

        Raises DataError when a step was bad and the TOML stops there.
        """
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._read(waiting)

    def _read(self, taken: TakenStep) -> None:
        metrics, outcome = read_step(self._run, taken, self._lines)
        held_out = HeldOut()
        try:
            self._bad_steps.settle(taken.place, outcome, taken.planned)
            held_out = measure_held_out(self._run, taken.place.next(), self._watch)
        finally:
            self.validation_loss = held_out.metrics.get("validation/loss")
            if self._shown is not None:
                self._shown.show({**metrics, **held_out.metrics})
                self._shown.show_answers(held_out.answers, step=taken.place.step + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.read()
        elif self._waiting is not None and self._shown is not None:
            with suppress(
                Exception
            ):  # what ended the run is what is told; other ranks may be gone, so ask them nothing
                self._shown.show(read_step(self._run, self._waiting, self._lines, ask_others=False)[0])
