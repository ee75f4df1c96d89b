"""vlm-train: from a mix to a model. One function per command; heavy imports stand inside: --help answers at once."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from vlm_catalogs.console import fact, result, run_main
from vlm_catalogs.errors import ConfigError

FAMILIES = ("qwen3_vl", "qwen3_vl_moe", "nemotron_h_omni", "cosmos3_edge")
EXIT_CODES = "exit codes: 0 done, 1 a bug, 2 wrong input, 3 findings"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    asked = _parser().parse_args(arguments)
    return run_main(lambda: int(asked.command(asked)))


def check(asked: argparse.Namespace) -> int:
    """vlm-train check CONFIG [--step]."""
    from vlm_catalogs.config import load_config
    from vlm_train.check import check_config

    config = load_config(Path(asked.config), overrides=asked.set)
    if not asked.step and (asked.ranks is not None or asked.nodes != 1):
        raise ConfigError("--ranks and --nodes say whose steps --step takes; give --step as well")
    return check_config(config, takes_steps=asked.step, num_ranks=asked.ranks, num_nodes=asked.nodes)


def run(asked: argparse.Namespace) -> int:
    """vlm-train run CONFIG [--resume]."""
    from vlm_catalogs.config import load_config

    config = load_config(Path(asked.config), overrides=asked.set)
    from vlm_train.local_ranks import local_processes, refuse_sizes, run_locally, this_command

    num_processes = local_processes(config)
    if num_processes > 1:
        refuse_sizes(config, num_processes=num_processes, resume=asked.resume)
        settings = [text for one in asked.set for text in ("--set", one)]
        resume = ["--resume"] if asked.resume else []
        return run_locally(this_command(["run", asked.config, *settings, *resume]), num_processes=num_processes)
    from vlm_train.run import run_training

    return run_training(config, resume=asked.resume)


def plan(asked: argparse.Namespace) -> int:
    """vlm-train plan CONFIG."""
    from vlm_catalogs.config import load_config
    from vlm_train.local_ranks import ranks_to_start
    from vlm_train.plan_epochs import plan_config

    config = load_config(Path(asked.config), overrides=asked.set)
    num_ranks = asked.ranks or ranks_to_start(config)
    return plan_config(config, num_ranks=num_ranks, num_nodes=asked.nodes, writes=not asked.dry_run, as_json=asked.json)


def inspect(asked: argparse.Namespace) -> int:
    """vlm-train inspect CONFIG [--sample ID]."""
    from vlm_catalogs.config import load_config
    from vlm_train.inspect_sample import inspect_config

    config = load_config(Path(asked.config), overrides=asked.set)
    return inspect_config(config, sample=asked.sample, as_json=asked.json)


def explain(asked: argparse.Namespace) -> int:
    """vlm-train explain RUN --step N | --spikes."""
    from vlm_train.explain import explain_run

    sheet = Path(asked.html) if asked.html else None
    return explain_run(Path(asked.run), step=asked.step, spikes=asked.spikes, as_json=asked.json, sheet=sheet)


def report(asked: argparse.Namespace) -> int:
    """vlm-train report RUN."""
    from vlm_train.run_report import report_run

    target = Path(asked.output) if asked.output else None
    return report_run(Path(asked.run), target=target, num_samples=asked.samples)


def export(asked: argparse.Namespace) -> int:
    """vlm-train export RUN DIR [--step N] [--adapter]."""
    from vlm_train.export import export_checkpoint

    folder = export_checkpoint(Path(asked.run), step=asked.step, folder=Path(asked.folder), adapter=asked.adapter)
    result(f"{'adapters' if asked.adapter else 'model'}: {folder}")
    return 0


def generate(asked: argparse.Namespace) -> int:
    """vlm-train generate RUN --sample ID [--step N]."""
    from vlm_train.generate import generate_answer
    from vlm_train.writer import Sampling

    how = Sampling(max_new_tokens=asked.max_new_tokens, temperature=asked.temperature, seed=asked.seed)
    return generate_answer(Path(asked.run), sample=asked.sample, step=asked.step, how=how, as_json=asked.json)


def make_tiny(asked: argparse.Namespace) -> int:
    """vlm-train make-tiny --family F DIR."""
    from vlm_train.make_tiny import make_tiny as write_tiny

    write_tiny(asked.family, Path(asked.folder), seed=asked.seed)
    fact(f"{asked.folder}: a tiny random {asked.family} with its processor")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vlm-train", description="Train a vision-language model on a mix.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_check(commands)
    _add_run(commands)
    _add_plan(commands)
    _add_inspect(commands)
    _add_explain(commands)
    _add_report(commands)
    _add_export(commands)
    _add_generate(commands)
    _add_make_tiny(commands)
    return parser


def _add_check(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "check",
        help="say what a TOML means and what is missing for a run",
        description="Print mode, resolved settings, notes, what trains and the state of the mix. Exit code 0 when a "
        "run could start, 2 when something is missing: every missing thing is listed.",
        epilog="example: vlm-train check configs/tiny/qwen3_vl_i4.toml",
    )
    _add_config(command)
    command.add_argument(
        "--step", action="store_true", help="also take the heaviest steps of the plan for real, and print their memory"
    )
    _add_ranks(command)
    command.set_defaults(command=check)


def _add_run(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "run",
        help="train on the mix of a TOML",
        description="Train on the mix that vlm-prep build-mix made of the same TOML. SIGTERM or Ctrl-C ends the run "
        "after its step, with a checkpoint where checkpoints are enabled, and exits with 128 + the signal's number.",
        epilog=f"example: vlm-train run configs/tiny/qwen3_vl_i4.toml --set train.output_dir=outputs/a; {EXIT_CODES}",
    )
    _add_config(command)
    command.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of train.output_dir")
    command.set_defaults(command=run)


def _add_plan(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "plan",
        help="plan every epoch of a run at once, and say what is in them",
        description="Plan the epochs of a run and write their tables to train.output_dir, where vlm-train run takes "
        "them as they are; print steps, how full rows are, samples and tokens of each dataset against what was asked, "
        "repeats, what the length policy did, and the shards that are read.",
        epilog="example: vlm-train plan configs/tiny/qwen3_vl_i4.toml --dry-run --ranks 16 --nodes 2",
    )
    _add_config(command)
    _add_ranks(command)
    command.add_argument("--dry-run", action="store_true", help="write nothing")
    command.add_argument("--json", action="store_true", help="one JSON object")
    command.set_defaults(command=plan)


def _add_ranks(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--ranks", type=_positive, metavar="N", help="ranks of the run; default: those of this machine"
    )
    command.add_argument(
        "--nodes", type=_positive, metavar="N", default=1, help="machines that they are on; default: 1"
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _add_inspect(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "inspect",
        help="show a sample as the model gets it: text with what is supervised, media sizes, tokens, turns",
        epilog="example: vlm-train inspect configs/tiny/qwen3_vl_i4.toml --sample demo_photos/part_000000/000000/0001",
    )
    _add_config(command)
    command.add_argument("--sample", metavar="ID", help="dataset/sample_id, or a sample_id; default: the first")
    command.add_argument("--json", action="store_true", help="one JSON object")
    command.set_defaults(command=inspect)


def _add_explain(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "explain",
        help="say which samples were in a step, with their own losses and where they came from",
        epilog="example: vlm-train explain outputs/a --step 20, or --spikes for every step whose loss jumped",
    )
    command.add_argument("run", metavar="RUN", help="output_dir of a run")
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument("--step", type=int, help="a step, as in metrics.jsonl")
    which.add_argument("--spikes", action="store_true", help="steps over the running median of 200 by 6 MAD")
    command.add_argument("--json", action="store_true", help="one JSON list of steps")
    command.add_argument("--html", metavar="FILE", help="also write a picture sheet: media, words, losses, lineage")
    command.set_defaults(command=explain)


def _add_report(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "report",
        help="write one page of a run: curves, shares of its datasets, bad steps, worst samples with pictures",
        epilog="example: vlm-train report outputs/a; the page is outputs/a/report.html, also while the run goes on",
    )
    command.add_argument("run", metavar="RUN", help="output_dir of a run")
    command.add_argument("--output", metavar="FILE", help="a file that does not exist yet; default: RUN/report.html")
    command.add_argument("--samples", type=_count, default=12, metavar="N", help="worst samples; default: 12")
    command.set_defaults(command=report)


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError
    return number


def _add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "export",
        help="write a checkpoint as a model folder for plain transformers",
        epilog="example: vlm-train export outputs/a exported --step 20",
    )
    command.add_argument("run", metavar="RUN", help="output_dir of a run")
    command.add_argument("folder", metavar="DIR", help="a folder that does not exist yet")
    command.add_argument("--step", type=int, help="step of the checkpoint; default: the newest")
    command.add_argument("--adapter", action="store_true", help="the low-rank adapters alone, as peft reads them")
    command.set_defaults(command=export)


def _add_generate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "generate",
        help="show what the model of a run answers to a sample of its mix, beside the reference",
        description="The prompt is the sample's conversation up to its last assistant turn, with media as training "
        "shows them. The weights are those of the step's export, or else of its checkpoint.",
        epilog="example: vlm-train generate outputs/a --sample demo_photos/photo_0003 --step 20",
    )
    command.add_argument("run", metavar="RUN", help="output_dir of a run")
    command.add_argument("--sample", metavar="ID", required=True, help="dataset/sample_id, or a sample_id")
    command.add_argument("--step", type=int, help="step of the weights; default: the newest")
    command.add_argument(
        "--max-new-tokens", type=_positive, metavar="N", default=128, help="tokens of the answer, at most; default: 128"
    )
    command.add_argument(
        "--temperature",
        type=_temperature,
        metavar="T",
        default=0.0,
        help="above 0 draws tokens; default: the likeliest",
    )
    command.add_argument("--seed", type=int, default=0, help="of what is drawn; default: 0")
    command.add_argument("--json", action="store_true", help="one JSON object")
    command.set_defaults(command=generate)


def _temperature(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ValueError
    return number


def _add_make_tiny(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "make-tiny",
        help="write a tiny random model with its processor, offline",
        epilog="example: vlm-train make-tiny --family qwen3_vl models/tiny/qwen3_vl",
    )
    command.add_argument("--family", required=True, choices=FAMILIES)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("folder", metavar="DIR", help="a folder that does not exist yet, or is empty")
    command.set_defaults(command=make_tiny)


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", metavar="CONFIG", help="the TOML that vlm-prep build-mix takes as well")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="section.key=value",
        help="change one setting; checked like the TOML, kept in the resolved config",
    )


if __name__ == "__main__":
    sys.exit(main())
