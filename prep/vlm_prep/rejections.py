"""How much may conversion leave out, and what to say of it?"""

from collections.abc import Sequence

from vlm_catalogs.config import Config
from vlm_catalogs.errors import DataError
from vlm_prep.mix import PreparedSource
from vlm_prep.reasons import MEANINGS
from vlm_prep.select import Rejections

ALWAYS_ALLOWED = 10
"""So many rejected samples of a source never fail a build."""
SHOWN_CHARACTERS = 300


def check_rejections(config: Config, prepared: Sequence[PreparedSource], found: Sequence[Rejections]) -> list[str]:
    """What to say of what conversion left out. Raises DataError when it is too much of a source."""
    failed, told = [], []
    for source in prepared:
        total = source.num_kept + source.num_rejected
        of_source = [door for door in found if door.dataset == source.name]
        lines = [f"{source.name}: {source.num_rejected:,} of {total:,} samples are rejected"] if of_source else []
        lines += [_rejection_line(door) for door in of_source]
        if source.num_rejected > max(ALWAYS_ALLOWED, config.mix.max_rejected_fraction * total):
            failed += lines
        elif lines:
            told.append("\n".join(lines))
    if failed:
        now = f"{config.mix.max_rejected_fraction:g}"
        advice = f"mend the source, or allow more with [mix] max_rejected_fraction (now {now})"
        raise DataError("\n".join([*failed, advice]))
    return told


def _rejection_line(door: Rejections) -> str:
    return (
        f"  {door.num_samples:,} x {door.reason}: {MEANINGS.get(door.reason, '')}\n"
        f"    such as {_clipped(door.example)}: {_clipped(door.detail)}"
    )


def _clipped(text: str) -> str:
    """Names and contents of the source may be of any length; the index has them whole."""
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
