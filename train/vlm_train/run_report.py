"""``vlm-train report RUN``: one page of what a run did: its curves, its mix, its routers, its worst samples.

One HTML file that needs nothing else and runs no text of the data (see ``vlm_catalogs.page``).
"""

from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any

from vlm_catalogs.config import Config, load_config
from vlm_catalogs.console import result
from vlm_catalogs.errors import ConfigError, StorageError, UserError
from vlm_catalogs.page import page_html
from vlm_train.explain import ExplainedSample, explain_step, steps_of_run
from vlm_train.explain_sheet import contents, rows_of_step, spelled
from vlm_train.metrics import BAD_STEPS_FILE, VALIDATION_FILE, read_metrics
from vlm_train.open_mix import OpenMix, open_version
from vlm_train.open_store import open_for_few
from vlm_train.report_numbers import bad_steps, curves, dataset_rows, run_facts, validation_curves
from vlm_train.sample_store import SampleStore
from vlm_train.start import CONFIG_FILE, mix_of_run
from vlm_train.worst_samples import WorstSample, worst_samples

REPORT_FILE = "report.html"


def report_run(run: Path, *, target: Path | None, num_samples: int) -> int:
    """Write the page of ``run`` to ``target``, or to ``report.html`` in the run; the exit code.

    Raises ConfigError for a folder that is no run and a ``target`` that exists, StorageError for one that takes none.
    """
    if target is not None and target.exists():
        raise ConfigError(f"{target}: exists already; name another file or move it away")
    lines = steps_of_run(run)
    if not lines:
        raise ConfigError(f"{run}: no step in its metrics yet")
    config = load_config(run / CONFIG_FILE)
    mix = open_version(config, mix_of_run(run))
    validations = _lines_of(run / VALIDATION_FILE)
    bad = _lines_of(run / BAD_STEPS_FILE)
    data = {
        "run": str(run),
        "facts": run_facts(lines, validations, bad, config=config, mix=mix.manifest),
        "curves": [*curves(lines), *validation_curves(validations)],
        "datasets": dataset_rows(lines, mix.manifest),
        "bad_steps": bad_steps(bad),
        **_worst(run, lines, config, mix, num_samples=num_samples),
    }
    path = target or run / REPORT_FILE
    own = files("vlm_train")
    scripts = [own.joinpath(f"{name}.js").read_text(encoding="utf-8") for name in ("sample_card", "run_report")]
    styles = [own.joinpath(f"{name}.css").read_text(encoding="utf-8") for name in ("explain_sheet", "run_report")]
    _write(path, page_html(f"{run.name} · run report", data, scripts=scripts, styles=styles))
    result(f"report: {path}")
    return 0


def _write(path: Path, text: str) -> None:
    staged = path.with_name(f".{path.name}.tmp")
    try:
        staged.write_text(text, encoding="utf-8")
        staged.replace(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error}") from error


def _lines_of(path: Path) -> list[dict[str, Any]]:
    return read_metrics(path) if path.is_file() else []


def _worst(run: Path, lines: list[dict[str, Any]], config: Config, mix: OpenMix, *, num_samples: int) -> dict[str, Any]:
    """The worst samples with their media and words; why there are none where nothing was logged or can be read."""
    try:
        worst = worst_samples(run, lines, most=num_samples)
        with closing(open_for_few(config, mix)) as store:
            return {"worst": [_card(run, one, store) for one in worst], "worst_problem": None}
    except UserError as error:  # the numbers of a run stay worth a page when its mix has moved
        return {"worst": [], "worst_problem": str(error)}


def _card(run: Path, worst: WorstSample, store: SampleStore) -> dict[str, Any]:
    step = explain_step(run, worst.line)
    sample = next(one for one in step.samples if _place(one) == (worst.row, worst.position))
    line = rows_of_step(run, step)[worst.row, worst.position]
    return {
        **spelled({name: getattr(sample, name) for name in ExplainedSample.__slots__}),
        **contents(line, sample, store),
        "step": step.step,
        **spelled({"step_loss": step.loss}),
    }


def _place(sample: ExplainedSample) -> tuple[int, int]:
    return sample.row, sample.position
