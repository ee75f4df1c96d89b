"""``vlm-prep prune``: what any mix pins stays; the rest goes only when asked, and what is left is sound."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vlm_catalogs.config import load_config
from vlm_catalogs.errors import ConfigError, DataError
from vlm_catalogs.manifest import current_mix
from vlm_catalogs.mix_place import copies_of
from vlm_prep.build import build_mix
from vlm_prep.part_store import LocalStore
from vlm_prep.prune import delete_parts, find_loose_parts
from vlm_prep.publish_mix import publish_mix
from vlm_prep.staging import staging_folder
from vlm_prep.verify import verify

COMMAND = Path(sys.executable).parent / "vlm-prep"
SHARDS, MIXES = Path("shards"), Path("mixes")
HERE = LocalStore(SHARDS)
COPIES = copies_of(None)


def files() -> set[Path]:
    return {path for path in SHARDS.rglob("*") if path.is_file()}


@pytest.fixture
def grown(built: Path) -> tuple[Path, Path]:
    """A source that gained a line after the first build: two versions of the mix; (the old part, the new part)."""
    source = built / "own.jsonl"
    line = {"messages": [{"role": "user", "content": "Say a"}, {"role": "assistant", "content": "a"}]}
    source.write_text(json.dumps(line) + "\n")
    with Path("mix.toml").open("a") as file:
        file.write(f"[[mix.source]]\nname = 'own'\npath = '{source}'\n")
    build_mix(load_config(Path("mix.toml")))
    (old,) = SHARDS.glob("own/*/parts/*")
    source.write_text(2 * (json.dumps(line) + "\n"))
    build_mix(load_config(Path("mix.toml")))
    (new,) = set(SHARDS.glob("own/*/parts/*")) - {old}
    return old, new


def drop_old_mixes() -> None:
    for version in MIXES.glob("mix/*"):
        if version.is_dir() and version != current_mix(MIXES / "mix"):
            shutil.rmtree(version)


def test_a_part_of_an_older_version_of_a_mix_stays(grown: tuple[Path, Path]) -> None:
    assert find_loose_parts(HERE, [str(MIXES)], copies=COPIES) == []
    drop_old_mixes()
    assert [part.folder for part in find_loose_parts(HERE, [str(MIXES)], copies=COPIES)] == [grown[0]]


def test_listing_deletes_nothing_and_delete_deletes_just_that(grown: tuple[Path, Path]) -> None:
    drop_old_mixes()
    before = files()
    parts = find_loose_parts(HERE, [str(MIXES)], copies=COPIES)
    assert files() == before
    delete_parts(HERE, parts, [str(MIXES)], copies=COPIES)
    gone = before - files()
    assert {path.parts[-2] if path.suffix == ".mds" else path.parts[-3] for path in gone} >= {grown[0].name}
    assert {path for path in gone if "sources" not in path.parts} == {p for p in before if grown[0] in p.parents}
    for path in ("shards", "mixes/mix"):
        assert verify(path, num_workers=1).findings == ()
    assert not any((SHARDS / ".staging").iterdir())


def test_the_view_goes_back_to_a_version_that_is_left(grown: tuple[Path, Path]) -> None:
    for version in (current_mix(MIXES / "mix"),):
        shutil.rmtree(version)
    (MIXES / "mix" / "current.json").unlink()
    parts = find_loose_parts(HERE, [str(MIXES)], copies=COPIES)
    assert [part.folder for part in parts] == [grown[1]]
    assert delete_parts(HERE, parts, [str(MIXES)], copies=COPIES) == parts
    assert verify("shards", num_workers=1).findings == ()
    assert json.loads((grown[0].parents[1] / "index.json").read_text())["shards"][0]["samples"] == 1


def test_mixes_of_several_folders_count(built: Path) -> None:
    shutil.copytree(MIXES, "elsewhere/mixes")
    for version in MIXES.glob("mix/*"):
        shutil.rmtree(version) if version.is_dir() else version.unlink()
    with pytest.raises(ConfigError, match="mixes: no mix here"):
        find_loose_parts(HERE, [str(MIXES)], copies=COPIES)
    assert find_loose_parts(HERE, ["elsewhere"], copies=COPIES) == []


@pytest.mark.parametrize("content", ["{", None])
def test_a_manifest_that_cannot_be_read_stops_it(built: Path, content: str | None) -> None:
    manifest = current_mix(MIXES / "mix") / "manifest.json"
    manifest.unlink() if content is None else manifest.write_text(content)
    before = files()
    run = subprocess.run(
        [COMMAND, "prune", "shards", "--mixes", "mixes", "--delete"], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert "manifest.json" in run.stderr
    assert files() == before


@pytest.mark.parametrize(("shards", "mixes"), [("nowhere", "mixes"), ("shards/demo_photos", "mixes"), ("shards", "no")])
def test_a_wrong_folder_is_a_config_error(built: Path, shards: str, mixes: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(mixes if mixes == "no" else shards)):
        find_loose_parts(LocalStore(Path(shards)), [mixes], copies=COPIES)


def test_nothing_is_deleted_while_a_build_is_at_work(grown: tuple[Path, Path]) -> None:
    drop_old_mixes()
    before = files()
    with staging_folder(SHARDS), pytest.raises(DataError, match="a build is at work here"):
        delete_parts(HERE, find_loose_parts(HERE, [str(MIXES)], copies=COPIES), [str(MIXES)], copies=COPIES)
    assert files() == before


def test_parts_that_a_mix_pins_since_they_were_listed_stay(grown: tuple[Path, Path]) -> None:
    (older,) = (path.parent for path in MIXES.glob("mix/*/manifest.json") if grown[0].name in path.read_text())
    older.rename("not_published_yet")
    parts = find_loose_parts(HERE, [str(MIXES)], copies=COPIES)
    assert [part.folder for part in parts] == [grown[0]]
    Path("not_published_yet").rename(older)
    before = files()
    assert delete_parts(HERE, parts, [str(MIXES)], copies=COPIES) == []
    assert files() == before


def test_nothing_is_deleted_while_a_mix_is_being_published(
    grown: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_old_mixes()
    parts, tried = find_loose_parts(HERE, [str(MIXES)], copies=COPIES), []

    def publish(*arguments: Any, **more: Any) -> Path:
        with pytest.raises(DataError, match="a build is at work here"):
            delete_parts(HERE, parts, [str(MIXES)], copies=COPIES)
        tried.append(parts)
        return publish_mix(*arguments, **more)

    monkeypatch.setattr("vlm_prep.build.publish_mix", publish)
    build_mix(load_config(Path("mix.toml")))
    assert tried and grown[0].is_dir()


def test_the_command_lists_and_deletes(grown: tuple[Path, Path]) -> None:
    drop_old_mixes()
    (grown[0].parent / "notes.txt").write_text("mine")
    command = [COMMAND, "prune", "shards", "--mixes", "mixes"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert listed.stdout.split()[0] == str(grown[0])
    assert "can be deleted with --delete" in listed.stderr
    assert grown[0].is_dir()
    deleted = subprocess.run([*command, "--delete"], capture_output=True, text=True, check=True)
    assert deleted.stdout == listed.stdout
    assert not grown[0].exists()
    assert grown[1].is_dir()
    assert (grown[0].parent / "notes.txt").read_text() == "mine"


def test_a_build_that_starts_while_parts_are_deleted_is_refused(
    grown: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_old_mixes()
    delete, tried = LocalStore.delete_part, []

    def delete_part(store: LocalStore, folder: Path, **more: Any) -> None:
        with pytest.raises(DataError, match="shards: a prune or a repair is at work here"):
            build_mix(load_config(Path("mix.toml")))
        tried.append(folder)
        delete(store, folder, **more)

    monkeypatch.setattr(LocalStore, "delete_part", delete_part)
    parts = find_loose_parts(HERE, [str(MIXES)], copies=COPIES)
    assert delete_parts(HERE, parts, [str(MIXES)], copies=COPIES) == parts
    assert tried == [grown[0]]
    build_mix(load_config(Path("mix.toml")))
    assert verify("mixes/mix", num_workers=1).findings == ()
