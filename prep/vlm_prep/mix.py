"""The manifest of a mix: pure arithmetic over what was converted, measured and selected."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from vlm_catalogs import json_text
from vlm_catalogs.config import Config, mix_settings
from vlm_catalogs.errors import ConfigError, DataError
from vlm_catalogs.hashing import file_hash, joined_hash
from vlm_catalogs.layout import PART_FILE, PartRecord, part_folder
from vlm_catalogs.manifest import Encoding, Manifest, MixDataset, PinnedPart, manifest_fields
from vlm_catalogs.mix_place import copies_of, mix_root, shards_reference
from vlm_catalogs.model_family import find_family
from vlm_catalogs.render import Renderer
from vlm_catalogs.render.settings import Profile
from vlm_catalogs.source import FileSource, Source
from vlm_prep.fact_files import DECODED_NAME, asks_for_decoding
from vlm_prep.lengths import lengths_name, profile_of
from vlm_prep.shares import DatasetDraws, Selected, dataset_draws
from vlm_prep.source_plan import SourcePlan

NO_DRAWS = DatasetDraws(share=Fraction(0), num_draws=0)
"""Of a dataset that is validated on, not trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedSource:
    """A source that is converted and measured."""

    plan: SourcePlan
    records: tuple[PartRecord, ...]
    encoding: str
    """Fingerprint of the renderer that its lengths were measured with."""

    @property
    def name(self) -> str:
        """The dataset."""
        return self.plan.source.name

    @property
    def num_kept(self) -> int:
        """Samples in shards."""
        return sum(record.num_kept for record in self.records)

    @property
    def num_rejected(self) -> int:
        """Samples left out at conversion."""
        return sum(record.num_rejected for record in self.records)

    def tables(self, name: str) -> tuple[Path, ...]:
        """One index file of every part."""
        return tuple(folder / name for folder in self.plan.folders())


def repeat_factor(source: Source) -> float:
    """How often a source's population counts: below 1 a fraction of it."""
    return source.repeat_time if isinstance(source, FileSource) else source.subsample.get(source.split, 1.0)


def check_epoch_size(config: Config) -> None:
    """Raise ConfigError for an epoch size that the unit of the weights gives no meaning."""
    mix = config.mix
    sizes = {"mix.epoch_samples": ("samples", mix.epoch_samples), "mix.epoch_tokens": ("tokens", mix.epoch_tokens)}
    for key, (unit, size) in sizes.items():
        if size is not None and mix.weight_unit != unit:
            raise ConfigError(
                f"{config.where(key)}: {key} has no effect with mix.weight_unit = {mix.weight_unit!r}, expected "
                f"{unit!r}; leave one of them out"
            )


def plan_draws(
    sources: Sequence[Source], num_selected: Mapping[str, int], num_tokens: Mapping[str, int], config: Config
) -> dict[str, DatasetDraws]:
    """Dataset -> its draws of one epoch. Raises DataError for a dataset that has a weight but no sample."""
    for source in sources:
        if num_selected.get(source.name, 0) == 0:
            raise DataError(
                f"{source.origin}: {source.name}: no sample is left to draw from, but its weight is {source.weight:g}; "
                "see the reasons above (without any it has no samples), or give it weight 0"
            )
    selected = {
        source.name: Selected(
            weight=source.weight,
            repeat_factor=repeat_factor(source),
            num_samples=num_selected[source.name],
            num_tokens=num_tokens[source.name],
        )
        for source in sources
    }
    mix = config.mix
    return dataset_draws(
        selected, weight_unit=mix.weight_unit, epoch_samples=mix.epoch_samples, epoch_tokens=mix.epoch_tokens
    )


def make_manifest(
    config: Config,
    prepared: Sequence[PreparedSource],
    renderers: Mapping[Profile, Renderer],
    *,
    num_selected: Mapping[str, int],
    num_tokens: Mapping[str, int],
    selection_hash: str,
    notes: Sequence[str],
) -> Manifest:
    """The manifest, its fingerprint included. Raises DataError for a dataset that has a weight but no sample."""
    sources = [source.plan.source for source in prepared]
    planned = plan_draws([one for one in sources if not one.is_held_out], num_selected, num_tokens, config)
    planned |= {one.name: NO_DRAWS for one in sources if one.is_held_out}
    copies = copies_of(config)
    version = mix_root(config, copies) / "version"
    decoded = DECODED_NAME if asks_for_decoding(config) else None
    datasets = tuple(
        MixDataset(
            name=source.name,
            format=source.plan.file_format,
            weight=source.plan.source.weight,
            share=float(planned[source.name].share),
            num_draws=planned[source.name].num_draws,
            draw_tokens=planned[source.name].draw_tokens,
            num_converted=source.num_kept,
            num_rejected=source.num_rejected,
            num_selected=num_selected[source.name],
            shards=shards_reference(source.plan.layout, version, copies),
            source_fingerprint=source.plan.fingerprint,
            parts=tuple(_pin(source, record, decoded=decoded) for record in source.records),
            of_parts=source.plan.of_parts,
        )
        for source in prepared
    )
    unnamed = Manifest(
        name=config.mix_name,
        fingerprint="",
        seed=config.mix.seed,
        weight_unit=config.mix.weight_unit,
        epoch_samples=sum(one.num_draws for one in planned.values()),
        model_max_length=config.policy.model_max_length,
        length_policy=config.mix.length_policy,
        encoding=_encoding(config, renderers),
        selection_xxh3_128=selection_hash,
        settings=mix_settings(config),
        datasets=datasets,
        notes=tuple(notes),
    )
    return replace(unnamed, fingerprint=fingerprint(unnamed))


def fingerprint(manifest: Manifest) -> str:
    """The identity of a mix: all that its manifest pins, but neither its name, nor where shards lie, nor notes."""
    fields = manifest_fields(manifest)
    for key in ("name", "fingerprint", "notes"):
        del fields[key]
    for dataset in fields["datasets"]:
        dataset["shards"] = Path(dataset["shards"]).name
    return joined_hash([json_text.dumps(fields)])


def _pin(source: PreparedSource, record: PartRecord, *, decoded: str | None) -> PinnedPart:
    folder = part_folder(source.plan.layout, record.name)
    lengths = lengths_name(source.encoding)
    return PinnedPart(
        name=record.name,
        part_json_xxh3_128=file_hash(folder / PART_FILE),
        num_samples=record.num_kept,
        lengths=lengths,
        lengths_xxh3_128=file_hash(folder / lengths),
        decoded=decoded,
        decoded_xxh3_128=None if decoded is None else file_hash(folder / decoded),
    )


def _encoding(config: Config, renderers: Mapping[Profile, Renderer]) -> Encoding:
    """One encoding for the mix; where i4 and normal datasets stand in it, both of theirs."""
    by_profile = sorted(renderers.items())
    model = find_family(config.policy.model_name_or_path, revision=config.policy.model_revision)
    return Encoding(
        fingerprint=joined_hash(value for profile, renderer in by_profile for value in (profile, renderer.fingerprint)),
        family=model.family,
        model_type=by_profile[0][1].model_type,
        settings={profile: renderer.description for profile, renderer in by_profile},
    )


def profiles(sources: Sequence[Source]) -> list[Profile]:
    """The rendering profiles that a mix needs."""
    return sorted({profile_of(source) for source in sources})
