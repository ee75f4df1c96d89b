"""Which parameters train: a pure decision over names, and the table that says why."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vlm_catalogs.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedParameter:
    """What the decision knows of a parameter."""

    name: str
    size: int
    """Number of values."""
    classes: frozenset[str]
    """Class names of the modules that it lies in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainableRules:
    """The keys of the TOML that decide, in the order in which they are applied."""

    train_layers: tuple[str, ...] = ()
    """``[custom] train_layers``: class names of modules left trainable."""
    trainable_pattern: tuple[str, ...] = ()
    """Regexes; with these or ``train_layers``, only what they name is trainable."""
    freeze_pattern: tuple[str, ...] = ()
    """Regexes; what they match is frozen."""
    trainable_map: Mapping[str, bool] = field(default_factory=dict)
    """Regex -> trainable; applied last, later entries win."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleMatch:
    """What one rule did."""

    rule: str
    num_tensors: int
    num_values: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainablePlan:
    """The decision: names of the trainable parameters, and what each rule matched."""

    trainable: frozenset[str]
    matches: tuple[RuleMatch, ...]
    num_trainable: int
    """Values that train."""
    num_frozen: int

    def lines(self) -> list[str]:
        """The table for people."""
        total = max(1, self.num_trainable + self.num_frozen)
        share = 100 * self.num_trainable / total
        head = f"{self.num_trainable:,} of {total:,} parameters train ({share:.1f} %)"
        return [head, *(f"  {one.rule}: {one.num_tensors} tensors, {one.num_values:,} values" for one in self.matches)]


def plan_trainable(parameters: Sequence[NamedParameter], rules: TrainableRules) -> TrainablePlan:
    """Which parameters train under ``rules``.

    Raises ConfigError for a rule that is no regex or matches nothing (with the nearest names), and when nothing trains.
    """
    named = [(f"train_layers {name!r}", _of_class(parameters, name), True) for name in rules.train_layers]
    named += [(f"trainable_pattern {text!r}", _matching(parameters, text), True) for text in rules.trainable_pattern]
    only_named = bool(named)
    named += [(f"freeze_pattern {text!r}", _matching(parameters, text), False) for text in rules.freeze_pattern]
    named += [
        (f"trainable_map {text!r} = {str(value).lower()}", _matching(parameters, text), value)
        for text, value in rules.trainable_map.items()
    ]
    trainable = set() if only_named else {parameter.name for parameter in parameters}
    for _, matched, trains in named:
        names = {parameter.name for parameter in matched}
        trainable = trainable | names if trains else trainable - names
    if not trainable:
        raise ConfigError("no parameter is left to train; loosen train_layers, trainable_pattern or freeze_pattern")
    num_trainable = _size(parameter for parameter in parameters if parameter.name in trainable)
    return TrainablePlan(
        trainable=frozenset(trainable),
        matches=tuple(_match(rule, matched, trains) for rule, matched, trains in named),
        num_trainable=num_trainable,
        num_frozen=_size(parameters) - num_trainable,
    )


def named_parameters(module: "nn.Module") -> list[NamedParameter]:
    """The parameters that a rule may train: a shared one stands once, one that the family has frozen is not there."""
    classes: dict[str, frozenset[str]] = {}
    for path, one in module.named_modules():
        above = classes[path.rpartition(".")[0]] if path else frozenset()
        classes[path] = above | {type(one).__name__}
    return [
        NamedParameter(name=name, size=parameter.numel(), classes=classes[name.rpartition(".")[0]])
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    ]


def apply_trainable(module: "nn.Module", plan: TrainablePlan) -> None:
    """Freeze everything that the plan does not train."""
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in plan.trainable)


def _matching(parameters: Sequence[NamedParameter], text: str) -> list[NamedParameter]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ConfigError(f"policy: {text!r} is not a regular expression: {error}") from error
    matched = [parameter for parameter in parameters if pattern.search(parameter.name)]
    if not matched:
        names = [parameter.name for parameter in parameters]
        raise ConfigError(f"policy: pattern {text!r} matches no parameter; nearest: {nearest_names(text, names)}")
    return matched


def _of_class(parameters: Sequence[NamedParameter], name: str) -> list[NamedParameter]:
    matched = [parameter for parameter in parameters if name in parameter.classes]
    if not matched:
        known = sorted({one for parameter in parameters for one in parameter.classes})
        raise ConfigError(
            f"custom.train_layers: no module of class {name!r} holds a parameter; nearest: {nearest_names(name, known)}"
        )
    return matched


def nearest_names(text: str, names: Sequence[str]) -> str:
    """Up to three names that look most like ``text``, its regex marks left out; of names that differ by number, one."""
    plain = re.sub(r"[\\^$.*+?()\[\]{}|]+", ".", text).strip(".")
    ranked = sorted(names, key=lambda name: -_likeness(plain, name))
    distinct: dict[str, str] = {}
    for name in ranked:
        distinct.setdefault(re.sub(r"\d+", "#", name), name)
    return ", ".join(list(distinct.values())[:3])


def _likeness(plain: str, name: str) -> float:
    """How well the best run of dotted pieces of ``name`` looks like ``plain``; a pattern usually names a piece."""
    pieces = name.split(".")
    width = plain.count(".") + 1
    runs = [".".join(pieces[begin : begin + width]) for begin in range(max(1, len(pieces) - width + 1))]
    return max(difflib.SequenceMatcher(None, plain, run).ratio() for run in runs)


def _match(rule: str, matched: Sequence[NamedParameter], trains: bool) -> RuleMatch:
    verb = "trains" if trains else "freezes"
    return RuleMatch(rule=f"{rule} {verb}", num_tensors=len(matched), num_values=_size(matched))


def _size(parameters: Iterable[NamedParameter]) -> int:
    return sum(parameter.size for parameter in parameters)
