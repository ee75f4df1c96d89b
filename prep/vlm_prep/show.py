"""All that the index knows of one sample: conversation, media, lengths, is it used and why, and where it came from."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlm_catalogs import json_text
from vlm_catalogs.errors import ConfigError, DataError
from vlm_catalogs.hashing import content_hash
from vlm_catalogs.layout import shard_name
from vlm_catalogs.object_copies import ObjectCopies
from vlm_prep.export.records import file_suffix
from vlm_prep.index_files import IndexFiles, PartFiles, find_index
from vlm_prep.one_sample import one_sample
from vlm_prep.reasons import meaning_of
from vlm_prep.select import open_index
from vlm_prep.sql import read_sql
from vlm_prep.staging import writing

NUM_NEAR = 5
"""So many near matches are named for an id that is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownSample:
    """One sample of an index; the fields are rows of the index tables, without what stands in ``sample`` already."""

    sample: dict[str, Any]
    """Its row of ``samples``: status, reason, lineage, counts, hashes."""
    part: PartFiles
    copies: ObjectCopies
    """Of what lies in S3."""
    shard: Path | None
    """The file that holds it, or stands for its object; None for a rejected sample."""
    conversations: tuple[list[dict[str, Any]], ...]
    media: tuple[dict[str, Any], ...]
    lengths: tuple[dict[str, Any], ...]
    selection: dict[str, Any] | None
    """Its row of the mix; None outside of a mix, and for a rejected sample."""
    draws: tuple[dict[str, Any], ...]
    """Of a run: the planned draws, with the loss where it has been trained on."""

    def decision(self) -> str:
        """Is it used and, if not, why: one line."""
        reason = self.sample["reason"]
        if self.sample["status"] != "kept":
            detail = f": {self.sample['detail']}" if self.sample["detail"] else ""
            return f"rejected: {reason} ({meaning_of(reason)}){detail}"
        if self.selection is None:
            return "converted"
        if self.selection["selected"]:
            return f"selected, split {self.selection['split']}"
        return f"not selected: {self.selection['reason']} ({meaning_of(self.selection['reason'])})"

    def as_json(self) -> dict[str, Any]:
        """The same for machines."""
        return {
            **self.sample,
            "decision": self.decision(),
            "part_folder": self.copies.shown(self.part.folder),
            "shard_file": None if self.shard is None else self.copies.shown(self.shard),
            "conversations": list(self.conversations),
            "media": list(self.media),
            "lengths": list(self.lengths),
            "selection": self.selection,
            "draws": list(self.draws),
        }


def show_sample(path: str, wanted: str, *, copies: ObjectCopies | None = None) -> ShownSample:
    """The sample that ``wanted`` means: a sample_id, or dataset/sample_id.

    Raises ConfigError where ``path`` has no such sample, with what comes near, or several; DataError for an index that
    is not whole.
    """
    files = find_index(path, copies=copies, compacted=False)
    row = _find_row(path, files, wanted)
    folder = Path(row.pop("filename")).parent
    part = next(one for one in files.parts if one.folder == folder)
    key, is_kept = row["sample_key"], row["status"] == "kept"
    texts = _rows(part.table("texts"), key) if is_kept else []
    return ShownSample(
        sample=row,
        part=part,
        copies=files.copies,
        shard=folder / shard_name(row["shard"]) if is_kept else None,
        conversations=tuple(_conversations(texts[0])) if texts else (),
        media=tuple(_rows(part.table("media"), key)),
        lengths=tuple({**one, "encoding": path.stem} for path in part.lengths for one in _rows(path, key)),
        selection=next(iter(_rows(files.mix / "selection.parquet", key)), None) if files.mix is not None else None,
        draws=tuple(_draws(files.run, key)) if files.run is not None else (),
    )


def write_media(shown: ShownSample, folder: Path) -> list[Path]:
    """The files of its media, byte for byte as in the source, now in ``folder``.

    Raises ConfigError for a rejected sample or a file that exists, DataError for a damaged shard, StorageError.
    """
    if shown.shard is None:
        raise ConfigError(f"{shown.sample['sample_id']}: a rejected sample has no media in the shards")
    written = []
    place = (shown.part.folder, shown.sample["shard"], shown.sample["index_in_shard"])
    with one_sample(*place, copies=shown.copies) as sample, writing(folder):
        targets = [folder / file_suffix(facts, position) for position, facts in enumerate(sample.media_table)]
        for target in targets:
            if target.exists():
                raise ConfigError(f"{target}: exists already; name another folder")
        folder.mkdir(parents=True, exist_ok=True)
        for facts, target in zip(sample.media_table, targets, strict=True):
            content = sample.medium(facts.name)
            if content_hash(content) != facts.xxh3_128:
                raise DataError(
                    f"{shown.copies.shown(shown.shard)}: {facts.name} is not what its hash says: run vlm-prep verify"
                )
            target.write_bytes(content)
            written.append(target)
    return written


def _find_row(path: str, files: IndexFiles, wanted: str) -> dict[str, Any]:
    question: dict[str, Any] = {"samples": [str(part.table("samples")) for part in files.parts], "id": wanted}
    if not question["samples"]:
        raise ConfigError(f"{path}: no sample {wanted!r}: no part has been converted here")
    with tempfile.TemporaryDirectory(prefix="vlm-prep-show-") as scratch, open_index(Path(scratch)) as index:
        rows = index.sql(read_sql("sample_by_id.sql"), params=question).to_arrow_table().to_pylist()
        if len(rows) == 1:
            return dict(rows[0])
        if rows:
            raise ConfigError(f"{path}: {wanted}: {len(rows)} samples have this id:\n{_several(rows)}")
        near = index.execute(read_sql("samples_like_id.sql"), {**question, "most": NUM_NEAR}).fetchall()
    similar = "".join(f"\n  {name}" for (name,) in near)
    raise ConfigError(f"{path}: no sample {wanted!r}" + (f"; near to it:{similar}" if similar else ""))


def _several(rows: Sequence[dict[str, Any]]) -> str:
    names = [f"  {row['dataset']}/{row['sample_id']}" for row in rows[:NUM_NEAR]]
    more = [f"  and {len(rows) - NUM_NEAR:,} more"] if len(rows) > NUM_NEAR else []
    if len({(row["dataset"], row["sample_id"]) for row in rows}) > 1:
        return "\n".join([*names, *more, "give dataset/sample_id"])
    parts = [f"{name}, {Path(row['filename']).parent}" for name, row in zip(names, rows, strict=False)]
    return "\n".join([*parts, *more, "these are versions of one source; give a mix, which has one of them, as PATH"])


def _conversations(texts: dict[str, Any]) -> list[list[dict[str, Any]]]:
    return [json_text.loads(texts["messages"]), *json_text.loads(texts["alternatives"])]


def _rows(path: Path, key: int) -> list[dict[str, Any]]:
    """The rows of one sample, without its name, which is known. Raises DataError for a table that cannot be read."""
    try:
        table = pq.read_table(path, filters=pc.field("sample_key") == pa.scalar(key, pa.uint64()))
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read: {error}; vlm-prep verify says what is wrong") from error
    rows: list[dict[str, Any]] = table.drop_columns(_known(table.column_names)).to_pylist()
    return rows


def _known(columns: Sequence[str]) -> list[str]:
    return [name for name in ("dataset", "sample_id", "sample_key") if name in columns]


def _draws(run: Path, key: int) -> list[dict[str, Any]]:
    losses: dict[tuple[int, ...], dict[str, Any]] = {}
    for path in sorted(run.glob("sample_loss/rank-*/part-*.parquet")):
        for row in sorted(_rows(path, key), key=lambda one: one["attempt"]):
            place = (row["epoch"], row["step"], row["row"], row["position"])
            if row["attempt"] >= losses.get(place, row)["attempt"]:
                losses[place] = row
    draws = [row for path in sorted(run.glob("epochs/epoch-*/part-*.parquet")) for row in _rows(path, key)]
    places = [(row["epoch"], row["step"], row["row"], row["position"]) for row in draws]
    return [{**row, "loss": _mean_loss(losses.get(place))} for row, place in zip(draws, places, strict=True)]


def _mean_loss(row: dict[str, Any] | None) -> float | None:
    """Over the supervised tokens; None for a draw that is not trained on yet, or has none."""
    if row is None or not row["supervised_tokens"]:
        return None
    return float(row["loss_sum"] / row["supervised_tokens"])
