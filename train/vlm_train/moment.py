"""When did a device get somewhere? Asked later, so that nobody waits for it in between."""

import time

import torch


class Moment:
    """The point in the work of a device at which it is made: reached once all that was queued before is done."""

    def __init__(self, device: torch.device) -> None:
        self._seconds = time.perf_counter()
        self._event: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            self._event.record()

    def wait(self) -> None:
        """Return once it is reached: at once on a CPU."""
        if self._event is not None:
            self._event.synchronize()

    def seconds_since(self, earlier: "Moment") -> float:
        """Time on the device between the two; waits for this one."""
        if self._event is None or earlier._event is None:
            return self._seconds - earlier._seconds
        self.wait()
        return float(earlier._event.elapsed_time(self._event)) / 1000
