"""How well is the machine used, and how full is its memory? What a step says beside its loss."""

import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from vlm_catalogs.config import Config
from vlm_catalogs.console import note
from vlm_train.device_peak import peak_of
from vlm_train.flops import StepFlops, step_flops
from vlm_train.models.meta_model import meta_module
from vlm_train.ranks import Ranks

if TYPE_CHECKING:
    from vlm_train.models.family import Batch, Family


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """Read once a step."""

    flops: StepFlops | None
    """None where MFU is not asked for, or the peak of the device is not known."""
    peak: float
    """Operations a second of one device."""
    ranks: Ranks

    def operations(self, batches: "Sequence[Batch]") -> float:
        """What the ``batches`` of this rank cost; 0 where nobody asks."""
        return 0.0 if self.flops is None else self.flops.of(batches)

    def metrics(self, operations: float, *, seconds: float) -> dict[str, float]:
        """Of a step that took ``seconds``, with the ``operations`` of all ranks."""
        found = {"train/peak_memory_bytes": float(peak_memory())}
        if self.flops is None:
            return found
        return {**found, "train/mfu": operations / (seconds * self.peak * self.ranks.size)}


def open_gauges(config: Config, family: "Family", ranks: Ranks) -> Gauges:
    """The gauges that ``[logging]`` asks for."""
    if not config.logging.report_mfu:
        return Gauges(flops=None, peak=0.0, ranks=ranks)
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    peak = peak_of(config, name)
    if peak is None:
        note(
            f"logging.report_mfu: nobody has said how fast {name} is, so no MFU is shown; set [logging] peak_tflops to "
            "its tera-operations a second"
        )
        return Gauges(flops=None, peak=0.0, ranks=ranks)
    return Gauges(flops=step_flops(meta_module(config)[0], family), peak=peak, ranks=ranks)


def peak_memory() -> int:
    """Bytes that this process has had in use at most: of the GPU where there is one, else resident in memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
