"""Last lines of `make demo`: the exported model is reloaded with plain transformers, and the loss must have fallen."""

import json
import sys
from pathlib import Path

from transformers import AutoModelForImageTextToText, AutoProcessor


def main(mix: Path, run: Path) -> int:
    """Exit code 0 when the model reloads and the loss of the last five steps is under the first, else 3."""
    losses = [json.loads(line)["train/loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    export = max((run / "safetensors").iterdir(), key=lambda folder: int(folder.name.removeprefix("step-")))
    model = AutoModelForImageTextToText.from_pretrained(export)
    AutoProcessor.from_pretrained(export)
    fingerprint = json.loads((mix / "current.json").read_text())["fingerprint"]
    print(f"mix:     {mix / fingerprint}")
    print(f"model:   {export} ({type(model).__name__}, reloaded with plain transformers)")
    print(f"metrics: {run / 'metrics.jsonl'}")
    last = sum(losses[-5:]) / len(losses[-5:])
    print(f"loss:    {losses[0]:.4f} -> {last:.4f} (mean of the last five) in {len(losses)} steps")
    return 0 if last < losses[0] else 3


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
