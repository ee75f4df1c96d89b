"""Which losses are spikes? The rule that ``vlm-train explain --spikes`` and ``[train] spike_mads`` share."""

import math
from collections.abc import Sequence
from statistics import median

WINDOW = 200
"""A spike is judged by so many steps before it; those whose loss is not finite say nothing."""
SPIKE_MADS = 6.0
"""So many median absolute deviations over the median is what ``explain`` calls a spike."""
FEWEST_BEFORE = 10
"""With fewer steps before it nothing is called a spike."""


def spike_steps(losses: Sequence[float], *, mads: float = SPIKE_MADS) -> list[int]:
    """The places of losses over the median of up to 200 before them by ``mads`` times their median absolute deviation.

    A loss that is not finite is one as soon as there are enough before it.
    """
    spikes = []
    for place, loss in enumerate(losses):
        before = [one for one in losses[max(0, place - WINDOW) : place] if math.isfinite(one)]
        if len(before) < FEWEST_BEFORE:
            continue
        middle = median(before)
        spread = median(abs(one - middle) for one in before)
        if not math.isfinite(loss) or loss > middle + mads * spread:
            spikes.append(place)
    return spikes
