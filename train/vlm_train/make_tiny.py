"""``vlm-train make-tiny``: a tiny random model with its processor, written offline, for demos, smoke runs and tests."""

import shutil
import tempfile
from pathlib import Path

from vlm_catalogs.errors import ConfigError

FAMILIES = ("qwen3_vl", "qwen3_vl_moe", "nemotron_h_omni", "cosmos3_edge")
"""What ``--family`` takes: the ``model_type`` of the model that is written."""


def make_tiny(family: str, folder: Path, *, seed: int = 0) -> None:
    """Write a random model of ``family`` (float32, under 2 MB) and its processor to ``folder``; same seed, same bytes.

    The folder appears whole, by rename. Raises ConfigError for an unknown family and for a folder with files in it.
    """
    if family not in FAMILIES:
        raise ConfigError(f"--family {family}: no such family; use one of {', '.join(FAMILIES)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: exists and is not an empty folder; name another one, or remove it first")
    # Imported here: torch and transformers take seconds, and the command line reads FAMILIES for its help.
    from vlm_train.models.pretrained import hush_progress_bars
    from vlm_train.tiny_models import build_tiny

    hush_progress_bars()
    model, processor = build_tiny(family, seed=seed)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        model.save_pretrained(staging)
        processor.save_pretrained(staging)
        staging.chmod(0o755)
        staging.replace(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
