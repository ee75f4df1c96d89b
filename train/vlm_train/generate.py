"""``vlm-train generate``: what a run's model answers to a sample of its mix, beside the reference."""

from dataclasses import replace
from pathlib import Path

from torch import nn

from vlm_catalogs import json_text
from vlm_catalogs.config import Config, load_config
from vlm_catalogs.console import fact, result
from vlm_catalogs.errors import ConfigError
from vlm_train.answers import Answer, answer_sample
from vlm_train.checkpoint import checkpoint_path, complete_checkpoints, step_of
from vlm_train.export import EXPORTS, export_path, load_checkpoint
from vlm_train.inspect_sample import find_row, read_row
from vlm_train.load import choose_device, load_family_of, load_module, precision
from vlm_train.models.pretrained import hush_progress_bars
from vlm_train.open_mix import load_renderers, open_version
from vlm_train.shard_parameters import WholeForward
from vlm_train.start import CONFIG_FILE, mix_of_run
from vlm_train.writer import Sampling, Writer


def generate_answer(run: Path, *, sample: str, step: int | None, how: Sampling, as_json: bool) -> int:
    """Print what the model of ``step`` (None: the newest) answers to ``sample``; the exit code.

    Raises ConfigError for a step or a sample that is not there, DataError when something is damaged.
    """
    source = find_weights(run, step)
    config = load_config(run / CONFIG_FILE)
    mix = open_version(config, mix_of_run(run))
    row = find_row(mix.selection(), sample)
    found = read_row(mix, row)
    renderer = load_renderers(config, mix)[row["dataset"]]
    fact(f"model: {source}")
    family, module = load_family_of(config), _load(config, source)
    answer = answer_sample(
        found,
        renderer.render(found.conversation(0), found.media_table),
        renderer=renderer,
        family=family,
        writer=Writer(whole=WholeForward(module, family), precision=precision(config)),
        how=how,
    )
    result(json_text.dumps({"model": str(source), **answer.as_line()}) if as_json else "\n".join(_lines(answer)))
    return 0


def find_weights(run: Path, step: int | None) -> Path:
    """The export of a step, which is small, or else its checkpoint; None: of the newest step that has either.

    Raises ConfigError for a step that has none, naming those that do.
    """
    exports = {step_of(path): path for path in (run / EXPORTS).glob("step-*")}
    found = {step_of(path): path for path in complete_checkpoints(run)} | exports
    steps = sorted(one for one in found if one is not None)
    if not steps:
        raise ConfigError(f"{run}: no export and no complete checkpoint in it; is it the output_dir of a run?")
    wanted = steps[-1] if step is None else step
    if wanted not in found:
        raise ConfigError(
            f"{run}: neither {export_path(run, wanted)} nor {checkpoint_path(run, wanted)} is there; there are steps "
            f"{', '.join(map(str, steps))}"
        )
    return found[wanted]


def _load(config: Config, source: Path) -> nn.Module:
    """The module with the weights of an export or a checkpoint, on the device where there is one."""
    hush_progress_bars()
    if source.parent.name != EXPORTS:
        return load_checkpoint(config, source).to(choose_device())
    exported = replace(
        config.policy, model_name_or_path=str(source), model_safetensor_path=None, model_revision=None, lora=None
    )
    config = replace(config, policy=exported)
    return load_module(config, load_family_of(config))


def _lines(answer: Answer) -> list[str]:
    end = "" if answer.is_whole else f" (cut off after {answer.num_tokens:,} tokens: --max-new-tokens)"
    shown = {"prompt": answer.prompt, f"answer{end}": answer.answer, "reference": answer.reference}
    problem = [f"note: {answer.problem}; it is shown blank"] if answer.problem else []
    return [answer.name, *problem, *(line for name, text in shown.items() for line in ("", f"{name}:", text))]
