"""The mix of a TOML, opened for training: found, compared with the TOML, its tables checked against their hashes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlm_catalogs.config import Config, mix_settings
from vlm_catalogs.config.mode import VALIDATION
from vlm_catalogs.errors import ConfigError, DataError
from vlm_catalogs.hashing import file_hash
from vlm_catalogs.layout import PART_FILE, part_folder
from vlm_catalogs.manifest import SELECTION_FILE, Manifest, MixDataset, read_manifest
from vlm_catalogs.mix_place import (
    bring_parts,
    bring_version,
    copies_of,
    copying_alone,
    find_current,
    layout_folder,
    mix_root,
    pinned_parts,
)
from vlm_catalogs.object_copies import ObjectCopies
from vlm_catalogs.object_store import S3Location
from vlm_catalogs.render import Renderer, RenderSettings, load_renderer
from vlm_train.draws import DatasetToDraw


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenMix:
    """One version of a mix; a running job keeps it whatever is built meanwhile."""

    folder: Path
    manifest: Manifest
    copies: ObjectCopies = field(default_factory=lambda: copies_of(None))
    """Of the index files of what lies in an object store."""
    remote: Mapping[str, S3Location] = field(default_factory=dict)
    """Dataset -> its layout in an object store, where the shards lie there; its index stands in ``layout`` as ever."""

    @property
    def place(self) -> str:
        """Where it lies, for people."""
        return self.copies.shown(self.folder)

    def dataset(self, name: str) -> MixDataset:
        """The dataset called ``name``."""
        return next(dataset for dataset in self.manifest.datasets if dataset.name == name)

    def selection(self) -> pa.Table:
        """Every sample, with what became of it. Raises DataError where the file is not as pinned."""
        path = self.folder / SELECTION_FILE
        _check_hash(path, self.manifest.selection_xxh3_128)
        return pq.read_table(path)

    def layout(self, dataset: MixDataset) -> Path:
        """The folder ``shards/<dataset>/<layout>``."""
        return layout_folder(self.folder, dataset, self.copies)

    def part(self, dataset: str, part: str) -> Path:
        """The folder of one part of ``dataset``."""
        return part_folder(self.layout(self.dataset(dataset)), part)

    def samples_table(self, dataset: str, part: str) -> Path:
        """samples.parquet of one part, copied here where it lies in a store. Raises DataError or StorageError."""
        folder = self.part(dataset, part)
        pins = [(folder, pin) for pin in self.dataset(dataset).parts if pin.name == part]
        bring_parts(pins, self.copies, tables=["samples.parquet"])
        return folder / "samples.parquet"


def open_mix(config: Config) -> OpenMix:
    """The current mix of ``config``.

    Raises ConfigError when the TOML asks for another mix than was built, DataError when there is none or it is damaged.
    """
    copies = copies_of(config)
    mix = _open(find_current(mix_root(config, copies), copies), copies)
    folder, manifest = mix.folder, mix.manifest
    built = dict(manifest.settings)
    if not config.validation.enable:  # what is there for validation alone is in nobody's way
        built = {key: value for key, value in built.items() if not key.startswith(VALIDATION)}
    differences = setting_differences(built, mix_settings(config))
    if differences:
        raise ConfigError(
            f"{mix.place}: this mix was built from other settings:\n  "
            + "\n  ".join(differences)
            + f"\nbuild it again: vlm-prep build-mix {config.path}"
        )
    if mix.remote:
        with copying_alone(copies):  # the other ranks of this machine find what the first has brought
            bring_parts(pinned_parts(folder, manifest, copies), copies, tables=())
    return mix


def open_version(config: Config, fingerprint: str) -> OpenMix:
    """A version of the mix of ``config``, whatever its settings are now. Raises DataError or StorageError."""
    copies = copies_of(config)
    folder = mix_root(config, copies) / fingerprint
    bring_version(folder, copies)
    return _open(folder, copies)


def _open(folder: Path, copies: ObjectCopies) -> OpenMix:
    manifest = read_manifest(folder)
    layouts = {dataset.name: layout_folder(folder, dataset, copies) for dataset in manifest.datasets}
    remote = {name: copies.location(layout) for name, layout in layouts.items() if copies.has_place_for(layout)}
    return OpenMix(folder=folder, manifest=manifest, copies=copies, remote=remote)


def setting_differences(built: Mapping[str, object], asked: Mapping[str, object]) -> list[str]:
    """The keys of the TOML that differ from those that the mix was built with, with both values."""
    asked = json.loads(json.dumps(asked))  # as JSON reads it back: tuples are lists
    return [
        f"{key}: the mix has {built.get(key)!r}, the TOML {asked.get(key)!r}"
        for key in sorted({*built, *asked})
        if built.get(key) != asked.get(key)
    ]


def load_renderers(config: Config, mix: OpenMix) -> dict[str, Renderer]:
    """The renderer of each dataset. Raises ConfigError when it would give other tokens than were measured."""
    by_profile: dict[str, Renderer] = {}
    renderers = {}
    for dataset in mix.manifest.datasets:
        settings = render_settings(config, dataset)
        if settings.profile not in by_profile:
            by_profile[settings.profile] = load_renderer(config.policy.model_name_or_path, settings=settings)
        renderers[dataset.name] = by_profile[settings.profile]
        _check_encoding(config, dataset, renderers[dataset.name].fingerprint)
    return renderers


def render_settings(config: Config, dataset: MixDataset) -> RenderSettings:
    """How the samples of one dataset are rendered."""
    return RenderSettings(
        profile="i4" if dataset.format == "i4" else "normal",
        model_max_length=config.policy.model_max_length,
        length_policy=config.mix.length_policy,
        system_prompt=config.train.train_policy.system_prompt or None,
        trust_remote_code=config.policy.trust_remote_code,
        revision=config.policy.model_revision,
    )


def datasets_to_draw(mix: OpenMix) -> list[DatasetToDraw]:
    """What the epochs draw from, in the order of the manifest. Raises DataError for tables that are not as pinned."""
    chosen = _selected(mix, "train")
    return [_dataset_to_draw(mix, dataset, chosen) for dataset in mix.manifest.datasets if dataset.num_draws > 0]


def held_out_datasets(mix: OpenMix) -> list[DatasetToDraw]:
    """The samples that are held out for validation, by dataset, in the order of the manifest, of those that have any.

    Raises DataError for tables that are not as pinned.
    """
    chosen = _selected(mix, "eval")
    found = set(chosen["dataset"].unique().to_pylist())
    return [_dataset_to_draw(mix, dataset, chosen) for dataset in mix.manifest.datasets if dataset.name in found]


def _selected(mix: OpenMix, split: str) -> pa.Table:
    selection = mix.selection()
    return selection.filter(pc.and_(selection["selected"], pc.equal(selection["split"], split)))


def _dataset_to_draw(mix: OpenMix, dataset: MixDataset, chosen: pa.Table) -> DatasetToDraw:
    samples = chosen.filter(pc.equal(chosen["dataset"], dataset.name))
    return DatasetToDraw(
        name=dataset.name,
        num_draws=dataset.num_draws,
        draw_tokens=dataset.draw_tokens,
        samples=_in_source_order(samples, [part.name for part in dataset.parts]),
        lengths=pa.concat_tables([_read_lengths(mix, dataset, number) for number in range(len(dataset.parts))]),
    )


def _in_source_order(samples: pa.Table, parts: list[str]) -> pa.Table:
    """The samples ordered by part as the manifest lists them, then by their place in the part."""
    ranks = pc.index_in(samples["part"], value_set=pa.array(parts, pa.string()))
    keys = [(name, "ascending") for name in ("part_rank", "shard", "index_in_shard")]
    return samples.append_column("part_rank", ranks).sort_by(keys).drop_columns("part_rank")


def _read_lengths(mix: OpenMix, dataset: MixDataset, number: int) -> pa.Table:
    part = dataset.parts[number]
    folder = part_folder(mix.layout(dataset), part.name)
    _check_hash(folder / PART_FILE, part.part_json_xxh3_128)  # it holds the hashes that shards are compared with
    path = folder / part.lengths
    _check_hash(path, part.lengths_xxh3_128)
    return pq.read_table(path)


def _check_encoding(config: Config, dataset: MixDataset, fingerprint: str) -> None:
    measured = {Path(part.lengths).stem for part in dataset.parts}
    if measured - {fingerprint}:
        raise ConfigError(
            f"{dataset.name}: the lengths of this mix were measured with another tokenizer, chat template, processor "
            f"or pixel settings than {config.policy.model_name_or_path} has now (encoding {fingerprint}, the mix has "
            f"{', '.join(sorted(measured))}); build it again: vlm-prep build-mix {config.path}"
        )


def _check_hash(path: Path, expected: str) -> None:
    if not path.is_file():
        raise DataError(f"{path}: missing, but the mix was built with it; run vlm-prep build-mix again")
    if file_hash(path) != expected:
        raise DataError(f"{path}: damaged: its content differs from what the mix pins; run vlm-prep build-mix again")
