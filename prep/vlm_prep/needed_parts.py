"""Which parts of its sources does a mix need? All of them, or with ``convert = "needed"`` as many as its epochs draw.

Semantics B4: parts are taken in the order xxh3(seed, part), source by source, until the selected samples cover the
draws of all epochs. Everything here is arithmetic over what was selected so far; the build converts and asks again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from vlm_catalogs.config import Config
from vlm_catalogs.errors import ConfigError
from vlm_catalogs.hashing import order_key
from vlm_prep.shares import draws, shares
from vlm_prep.source_plan import SourcePlan

NumParts = Mapping[str, int]
"""Dataset -> how many of its parts are taken."""


def check_needed(config: Config) -> None:
    """Raise ConfigError where the draws of an epoch are not known before anything is converted."""
    mix = config.mix
    if mix.convert == "needed" and (mix.epoch_samples is None or mix.weight_unit != "samples"):
        raise ConfigError(
            f"{config.where('mix.convert')}: mix.convert = 'needed' converts what the epochs draw, so it takes "
            "mix.epoch_samples (and weight_unit = 'samples'); give epoch_samples, or use 'all'"
        )


def first_parts(config: Config, plans: Sequence[SourcePlan]) -> NumParts:
    """What to take at first: everything, or one part of each source that is trained on."""
    takes_all = config.mix.convert == "all"
    return {plan.source.name: len(plan.parts) if takes_all or plan.source.is_held_out else 1 for plan in plans}


def more_parts(
    config: Config, plans: Sequence[SourcePlan], taken: NumParts, *, num_selected: Mapping[str, int]
) -> NumParts:
    """What to take next; the same again when the draws are covered or nothing is left.

    ``num_selected``: dataset -> samples to draw from among the parts that are taken. A source grows to what these
    promise, rounded down, by at least one part: so it takes few rounds and hardly more parts than it needs.
    """
    if config.mix.convert == "all":
        return taken
    wanted = draws_of_all_epochs(config, plans)
    grown = {}
    for plan in plans:
        name, now = plan.source.name, taken[plan.source.name]
        selected = num_selected.get(name, 0)
        if plan.source.is_held_out:
            grown[name] = now
            continue
        promised = wanted[name] * now // selected if selected else 2 * now
        is_covered = selected >= max(1, wanted[name])
        grown[name] = now if is_covered else min(len(plan.parts), max(now + 1, promised))
    return grown


def draws_of_all_epochs(config: Config, plans: Sequence[SourcePlan]) -> dict[str, int]:
    """Dataset -> draws of ``[train] epoch`` epochs of ``epoch_samples``."""
    assert config.mix.epoch_samples is not None
    by_weight = shares({plan.source.name: plan.source.weight for plan in plans if not plan.source.is_held_out})
    counts = draws(by_weight, config.mix.epoch_samples)
    return {name: number * config.train.epoch for name, number in counts.items()}


def taken_plan(plan: SourcePlan, number: int, *, seed: int) -> SourcePlan:
    """The plan with ``number`` of its parts, in the order of the source; they name a version of it of their own."""
    if number == len(plan.parts):
        return plan
    chosen = {
        part.name for part in sorted(plan.parts, key=lambda part: (order_key(seed, part.name), part.name))[:number]
    }
    parts = tuple(part for part in plan.parts if part.name in chosen)
    about = f"{plan.source.name}: {len(parts):,} of {len(plan.parts):,} parts are needed and converted"
    return replace(plan, parts=parts, of_parts=len(plan.parts), notes=(*plan.notes, about), stated_samples=None)
