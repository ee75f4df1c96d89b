"""Loggers of people: TensorBoard, Weights & Biases, trackio. metrics.jsonl has every number whatever they do."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any, Protocol

from vlm_catalogs.config import Config
from vlm_catalogs.errors import ConfigError

if TYPE_CHECKING:
    from vlm_train.answers import Answer

INSTALL = {
    "tensorboard": "pip install 'vlm-mix[tensorboard]'",
    "wandb": "pip install 'vlm-mix[wandb]'",
    "trackio": "pip install 'vlm-mix[trackio]'",
}
RUN_FILE = "wandb_run_id"
"""In output_dir: the id that a resumed run goes on under."""
ANSWER_COLUMNS = ("sample", "prompt", "answer", "reference")
CODE = " " * 4
"""What makes a line code in Markdown."""


class Logger(Protocol):
    """Takes the numbers of a step."""

    def log(self, numbers: Mapping[str, float], *, step: int) -> None:
        """Take the numbers of ``step``."""
        ...

    def log_answers(self, answers: "Sequence[Answer]", *, step: int) -> None:
        """Take what the model answered to held-out samples after ``step`` steps."""
        ...

    def close(self) -> None:
        """Write what is still held."""
        ...


def missing_loggers(names: Sequence[str]) -> list[str]:
    """What to say of the loggers asked for that are not installed; a run goes on without them."""
    return [
        f"logging.logger: {name} is not installed, so nothing goes there ({INSTALL[name]}); metrics.jsonl has it all"
        for name in names
        if name in INSTALL and find_spec(name) is None
    ]


@contextmanager
def open_all(config: Config, output_dir: Path) -> Iterator[list[Logger]]:
    """The loggers of ``[logging] logger`` that are installed, closed at the end. Raises ConfigError."""
    loggers = open_loggers(config, output_dir)
    try:
        yield loggers
    finally:
        for logger in loggers:
            logger.close()


def open_loggers(config: Config, output_dir: Path) -> list[Logger]:
    """The loggers of ``[logging] logger`` that are installed. Raises ConfigError when one cannot start."""
    kinds: dict[str, Callable[[Config, Path], Logger]] = {
        "tensorboard": TensorBoard,
        "wandb": WeightsAndBiases,
        "trackio": Trackio,
    }
    wanted = [name for name in config.logging.logger if name in kinds and find_spec(name) is not None]
    return [kinds[name](config, output_dir) for name in wanted]


def numbers_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line of metrics, without the step itself."""
    return {
        name: value
        for name, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name != "step"
    }


class TensorBoard:
    """Event files under ``<output_dir>/tensorboard``; after a resume, the later event of a step counts."""

    def __init__(self, config: Config, output_dir: Path) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer: Any = SummaryWriter(str(output_dir / "tensorboard"))

    def log(self, numbers: Mapping[str, float], *, step: int) -> None:
        """Take the numbers of ``step``."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def log_answers(self, answers: "Sequence[Answer]", *, step: int) -> None:
        """A text for each sample; indented, so that nothing in it is read as Markdown."""
        for one in answers:
            text = f"answer\n\n{indent(one.answer, CODE)}\n\nreference\n\n{indent(one.reference, CODE)}"
            self._writer.add_text(f"answers/{one.name}", text, step)

    def close(self) -> None:
        """Write what is still held."""
        self._writer.close()


class WeightsAndBiases:
    """A run of wandb. Its own environment variables (WANDB_MODE, WANDB_API_KEY) hold."""

    def __init__(self, config: Config, output_dir: Path) -> None:
        import wandb

        path = output_dir / RUN_FILE
        known = path.read_text().strip() if path.exists() else None
        try:
            self._run: Any = wandb.init(
                project=config.logging.project_name or "vlm-mix",
                name=config.logging.experiment_name or output_dir.name,
                dir=str(output_dir),
                id=known,
                resume="allow",
            )
        except wandb.errors.Error as error:
            raise ConfigError(
                f"{config.where('logging.logger')}: logging.logger: wandb cannot start: {error}; log in, set "
                "WANDB_MODE=offline, or leave it out"
            ) from error
        path.write_text(self._run.id)

    def log(self, numbers: Mapping[str, float], *, step: int) -> None:
        """Take the numbers of ``step``."""
        self._run.log(dict(numbers), step=step)

    def log_answers(self, answers: "Sequence[Answer]", *, step: int) -> None:
        """A table of all of them."""
        import wandb

        rows = [[one.name, one.prompt, one.answer, one.reference] for one in answers]
        self._run.log({"validation/answers": wandb.Table(columns=list(ANSWER_COLUMNS), data=rows)}, step=step)

    def close(self) -> None:
        """Write what is still held."""
        self._run.finish()


class Trackio:
    """A run of trackio, in its own local database."""

    def __init__(self, config: Config, output_dir: Path) -> None:
        import trackio

        self._trackio: Any = trackio
        trackio.init(
            project=config.logging.project_name or "vlm-mix",
            name=config.logging.experiment_name or output_dir.name,
            resume="allow",
        )

    def log(self, numbers: Mapping[str, float], *, step: int) -> None:
        """Take the numbers of ``step``."""
        self._trackio.log(dict(numbers), step=step)

    def log_answers(self, answers: "Sequence[Answer]", *, step: int) -> None:
        """Nothing: validation_samples.jsonl has them."""

    def close(self) -> None:
        """Write what is still held."""
        self._trackio.finish()
