"""``convert = "needed"``: as many parts as the epochs draw, in a seeded order; a mix of some parts is a whole mix."""

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from vlm_catalogs.config import load_config
from vlm_catalogs.errors import ConfigError
from vlm_catalogs.hashing import order_key
from vlm_catalogs.manifest import Manifest, read_manifest
from vlm_prep import build as story
from vlm_prep import parts
from vlm_prep.build import build_mix
from vlm_prep.build_plan import plan_build
from vlm_prep.verify import verify
from vlm_train.make_tiny import make_tiny

NUM_TARS, SAMPLES_PER_TAR = 12, 5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    make_tiny("qwen3_vl", folder)
    return folder


@pytest.fixture(autouse=True)
def place(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source of 12 tars, a part each, 5 samples in each; and mix.toml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parts, "TAR_PART_BYTES", 1)
    names = [f"{number:06d}.tar" for number in range(NUM_TARS)]
    for number, name in enumerate(names):
        write_tar(Path("bucket/set/texts", name), number)
    wdinfo = {"root": "set", "data_list": names, "total_key_count": NUM_TARS * SAMPLES_PER_TAR}
    Path("bucket/set/wdinfo.json").write_text(json.dumps(wdinfo))
    Path("listed.py").write_text(
        "from projects.cosmos3.vlm.datasets.utils import DataSource\n"
        "DATAINFO = {'set': DataSource(wdinfo_path={'train': 'set/wdinfo.json'}, text_keys=['texts'],"
        " media_keys=None)}\nweights = {'set': 1}\n"
    )
    Path("mix.toml").write_text(
        f'[policy]\nmodel_name_or_path = "{model}"\nmodel_max_length = 1024\n[custom]\nuse_i4 = true\n'
        'i4_data_source = "listed.weights"\n[mix]\ni4_root = "bucket"\nconvert = "needed"\nnum_workers = 1\n'
    )


def write_tar(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for index in range(SAMPLES_PER_TAR):
            turns = [{"role": "user", "content": f"{number} + {index}?"}, {"role": "assistant", "content": "?" * index}]
            content = json.dumps(turns).encode()
            info = tarfile.TarInfo(f"{index}.json")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def build(*overrides: str) -> Manifest:
    return read_manifest(build_mix(load_config(Path("mix.toml"), overrides=overrides)))


def converted() -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in Path("shards").rglob("part.json")}


def names_of(manifest: Manifest) -> list[str]:
    return [part.name for part in manifest.datasets[0].parts]


def test_parts_are_taken_in_a_seeded_order_until_all_epochs_are_covered(capfd: pytest.CaptureFixture[str]) -> None:
    manifest = build("mix.epoch_samples=7", "train.epoch=2")
    (dataset,) = manifest.datasets
    assert (dataset.num_draws, dataset.num_converted, dataset.of_parts) == (7, 15, NUM_TARS)
    assert set(converted()) == set(names_of(manifest))
    (plan,) = plan_build(load_config(Path("mix.toml"), overrides=("mix.epoch_samples=7",))).sources
    in_order = sorted((part.name for part in plan.parts), key=lambda name: order_key(0, name))
    assert set(names_of(manifest)) == set(in_order[:3])
    assert names_of(manifest) == [part.name for part in plan.parts if part.name in in_order[:3]]
    assert "set: 3 of 12 parts are needed and converted" in manifest.notes
    assert "note: set: 3 of 12 parts are needed and converted" in capfd.readouterr().err.splitlines()
    assert not verify("mix.toml", num_workers=1).findings
    other = build("mix.epoch_samples=7", "train.epoch=2", "mix.seed=1", "mix.name='other'")
    assert set(names_of(other)) != set(names_of(manifest))


def test_more_epochs_take_more_parts_and_rewrite_nothing() -> None:
    few = build("mix.epoch_samples=7")
    before = converted()
    assert len(before) == 2
    many = build("mix.epoch_samples=7", "train.epoch=4")
    after = converted()
    assert len(after) == 6
    assert {name: after[name] for name in before} == before
    assert many.fingerprint != few.fingerprint
    assert build("mix.epoch_samples=7") == few
    assert not verify("shards", num_workers=1).findings


def test_what_selection_leaves_out_covers_no_draw() -> None:
    manifest = build("mix.epoch_samples=10", "mix.select.where.long='text_chars > 8'")
    (dataset,) = manifest.datasets
    assert dataset.num_selected >= 10 > dataset.num_selected - SAMPLES_PER_TAR
    assert dataset.num_converted > dataset.num_selected


def test_a_source_that_is_too_small_is_taken_whole() -> None:
    manifest = build("mix.epoch_samples=1000")
    (dataset,) = manifest.datasets
    assert (len(dataset.parts), dataset.of_parts, dataset.num_converted) == (NUM_TARS, None, 60)


@pytest.mark.parametrize("setting", ["mix.seed=0", "mix.weight_unit='repeats'"])
def test_without_the_size_of_an_epoch_it_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=r"mix\.toml:\d+: mix\.convert = 'needed' converts what the epochs draw"):
        build(setting)


def test_an_interrupted_build_takes_the_same_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = build("mix.epoch_samples=20")
    shutil.rmtree("shards")
    shutil.rmtree("mixes")
    kept: list[Any] = []

    def stop(*arguments: Any, **named: Any) -> Any:
        kept.append(arguments)
        if len(kept) == 2:
            raise KeyboardInterrupt
        return convert(*arguments, **named)

    convert = story.convert_missing
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(story, "convert_missing", stop)
        build("mix.epoch_samples=20")
    assert len(converted()) == 1
    assert build("mix.epoch_samples=20") == whole
