"""A TOML is read into a Config, or everything that is wrong with it is said at once."""

import subprocess
import sys
from pathlib import Path

import pytest

from vlm_catalogs.config import Config, describe_mode, load_config, mix_settings
from vlm_catalogs.errors import ConfigError

MODEL = '[policy]\nmodel_name_or_path = "Qwen/Qwen3-VL-8B-Instruct"\n'
CONFIGS = Path(__file__).parents[2] / "configs"


def write(folder: Path, text: str, *, name: str = "run.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, text: str, *overrides: str) -> Config:
    return load_config(write(folder, MODEL + text), overrides=overrides)


def problems(folder: Path, text: str, *overrides: str) -> list[str]:
    """The lines of the error, without the folder and with line numbers that leave the two lines of MODEL out."""
    with pytest.raises(ConfigError) as caught:
        load_config(write(folder, text + MODEL), overrides=overrides)
    return str(caught.value).replace(f"{folder}/", "").split("\n")


SIX_MISTAKES = """\
redis = "12800"

[train]
epochs = 3
optm_lr = "1e-5"
optm_decay_type = "cosin"
train_batch_per_replica = true

[train.train_policy]
mini_batch = 0

[mixx]
seed = 1
"""


def test_six_mistakes_are_reported_at_once_each_with_its_line(tmp_path: Path) -> None:
    assert problems(tmp_path, SIX_MISTAKES) == [
        "run.toml:4: train.epochs: unknown key; did you mean 'epoch'?",
        "run.toml:5: train.optm_lr: expected a number >= 0 or a table of numbers >= 0, got '1e-5'",
        "run.toml:6: train.optm_decay_type: expected one of 'none', 'linear', 'cosine', 'sqrt', got 'cosin'; "
        "did you mean 'cosine'?",
        "run.toml:7: train.train_batch_per_replica: expected a whole number >= 1, got true",
        "run.toml:10: train.train_policy.mini_batch: expected a whole number >= 1, got 0",
        "run.toml:12: mixx: unknown key; did you mean 'mix'?",
    ]


def test_a_wrong_file_is_refused_without_importing_anything_heavy(tmp_path: Path) -> None:
    path = write(tmp_path, SIX_MISTAKES)
    program = (
        "import sys, pathlib\n"
        "from vlm_catalogs.config import load_config\n"
        "from vlm_catalogs.errors import ConfigError\n"
        "try:\n"
        "    load_config(pathlib.Path(sys.argv[1]))\n"
        "except ConfigError:\n"
        "    heavy = ('torch', 'transformers', 'duckdb', 'pyarrow', 'rich', 'boto3', 'streaming', 'numpy')\n"
        "    print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nepoch = 0\n", "run.toml:2: train.epoch: expected a whole number >= 1, got 0"),
        ("[train]\nepoch = 1.0\n", "run.toml:2: train.epoch: expected a whole number >= 1, got 1.0"),
        ("[train]\nepoch = true\n", "run.toml:2: train.epoch: expected a whole number >= 1, got true"),
        (
            "[train]\noptm_lr = nan\n",
            "run.toml:2: train.optm_lr: expected a number >= 0 or a table of numbers >= 0, got nan",
        ),
        (
            "[train]\noptm_lr = -1\n",
            "run.toml:2: train.optm_lr: expected a number >= 0 or a table of numbers >= 0, got -1",
        ),
        ("[train]\noutput_dir = 3\n", "run.toml:2: train.output_dir: expected a string, got 3"),
        ("[train]\nresume = 3\n", "run.toml:2: train.resume: expected true or false or a string, got 3"),
        ("[train]\ncompile = 1\n", "run.toml:2: train.compile: expected true or false, got 1"),
        (
            "[train]\noptm_betas = [0.9, 1.0]\n",
            "run.toml:2: train.optm_betas: expected a list of 2, each a number >= 0 and < 1, got [0.9, 1.0]",
        ),
        (
            "[train]\noptm_betas = [0.9]\n",
            "run.toml:2: train.optm_betas: expected a list of 2, each a number >= 0 and < 1, got [0.9]",
        ),
        (
            "[train]\noptm_warmup_steps = 1.5\n",
            "run.toml:2: train.optm_warmup_steps: expected a whole number of steps, or a share from 0.0 to 1.0, "
            "got 1.5",
        ),
        (
            "[train]\noptm_decay_ratio = 0.2\n",
            "run.toml:2: train.optm_decay_ratio: has no effect without optm_decay_type; "
            "set that to 'linear', 'cosine' or 'sqrt', or leave the ratio out",
        ),
        ("[train]\noptm_name = 'Lion'\n", "run.toml:2: train.optm_name: expected 'AdamW', got 'Lion'"),
        (
            "[mix]\nseed = 99999999999999999999\n",
            "run.toml:2: mix.seed: expected a whole number >= 0, got 99999999999999999999",
        ),
        ("train = 3\n", "run.toml:1: train: expected a table, as [train], got 3"),
        ("[[train]]\nepoch = 1\n", "run.toml:1: train: expected a table, as [train], got a list"),
        ("[mix]\nsource = 3\n", "run.toml:2: mix.source: expected tables, as [[mix.source]], got 3"),
        ("[mix.source]\nname = 'a'\n", "run.toml:1: mix.source: expected tables, as [[mix.source]], got a table"),
        ("[mix]\nsource = [3]\n", "run.toml:2: mix.source[0]: expected a table, as [mix.source[0]], got 3"),
        (
            "[[mix.source]]\nname = 'a'\npath = 'b'\nweight = inf\n",
            "run.toml:4: mix.source[0].weight: expected a number >= 0, got inf",
        ),
        (
            "[[mix.source]]\nname = 'a'\n",
            "run.toml:1: mix.source[0].path: missing; a source has a name and a path, or a catalog",
        ),
        (
            "[[mix.source]]\nname = 'a'\ncatalog = 'b.toml'\n",
            "run.toml:3: mix.source[0].catalog: expected either catalog, or name and path; got both",
        ),
        (
            "[[mix.source]]\nname = '../a'\npath = 'b'\n",
            "run.toml:2: mix.source[0].name: expected a name without slashes, got '../a'",
        ),
        ("[mix]\nname = 'a/b'\n", "run.toml:2: mix.name: expected the name of one folder, got 'a/b'"),
        (
            "[mix.select]\nfractions = {one = 1.5}\n",
            "run.toml:2: mix.select.fractions: expected a table of numbers > 0 and <= 1, got {one = 1.5}",
        ),
        (
            "[custom]\ntrain_layers = 'Block'\n",
            "run.toml:2: custom.train_layers: expected a list of strings, got 'Block'",
        ),
        (
            "[logging]\nlogger = ['consol']\n",
            "run.toml:2: logging.logger: expected a list of values, each one of 'console', 'wandb', 'tensorboard', "
            "'trackio', got ['consol']",
        ),
        (
            "[custom]\nmini_batch = 1\n",
            "run.toml:2: custom.mini_batch: unknown key; did you mean 'train.train_policy.mini_batch'?",
        ),
    ],
)
def test_a_value_that_does_not_fit_says_what_would(tmp_path: Path, text: str, message: str) -> None:
    assert problems(tmp_path, text) == [message]


def test_patterns_that_are_no_regular_expressions_are_named(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, "", "policy.freeze_pattern=['visual.(']")
    assert problem.startswith("--set: policy.freeze_pattern: expected regular expressions, got 'visual.(': ")
    (problem,) = problems(tmp_path, "", "train.optm_lr={'(' = 1.0, default = 0.1}")
    assert problem.startswith("--set: train.optm_lr: expected regular expressions, got '(': ")


def test_whole_numbers_are_taken_for_numbers_and_stay_exact_for_counts(tmp_path: Path) -> None:
    config = load(tmp_path, "[train]\noptm_lr = 1\noptm_warmup_steps = 3\n[mix]\nmax_rejected_fraction = 1\n")
    assert (type(config.train.optm_lr), config.train.optm_lr) == (float, 1.0)
    assert type(config.train.optm_warmup_steps) is int
    assert type(load(tmp_path, "[train]\noptm_warmup_steps = 0.1\n").train.optm_warmup_steps) is float


def test_steps_must_be_cut_into_whole_micro_batches(tmp_path: Path) -> None:
    rule = "[train]\ntrain_batch_per_replica = 6\n[train.train_policy]\nmini_batch = 4\n"
    assert problems(tmp_path, rule) == [
        "run.toml:2: train.train_batch_per_replica: expected a multiple of mini_batch (4), got 6; "
        "mini_batch could be 1, 2, 3, 6"
    ]
    assert load(tmp_path, rule + "[stream]\nrows_per_step = 8\n").stream.rows_per_step == 8


def test_a_rule_across_keys_does_not_repeat_a_key_that_is_wrong_already(tmp_path: Path) -> None:
    assert problems(tmp_path, "[train]\ntrain_batch_per_replica = 7.5\n") == [
        "run.toml:2: train.train_batch_per_replica: expected a whole number >= 1, got 7.5"
    ]


def test_a_table_of_the_wrong_type_is_the_only_problem_of_what_should_stand_in_it(tmp_path: Path) -> None:
    path = write(tmp_path, "policy = 3\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value) == f"{path}:1: policy: expected a table, as [policy], got 3"


def test_a_missing_model_and_an_unknown_family_are_problems_among_the_others(tmp_path: Path) -> None:
    path = write(tmp_path, "[policy]\n[train]\nepoch = 0\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).split("\n") == [
        f"{path}:1: policy.model_name_or_path: missing; name a model folder or a hub id",
        f"{path}:3: train.epoch: expected a whole number >= 1, got 0",
    ]
    with pytest.raises(ConfigError, match=r"run.toml:2: policy.model_name_or_path: 'gpt': .*name tells no family"):
        load_config(write(tmp_path, '[policy]\nmodel_name_or_path = "gpt"\n'))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[train]\nepoch = \n", r"run.toml:2: not TOML: Invalid value"),
        (b"[train\n", r"run.toml:1: not TOML"),
        (b"[train]\nepoch = 1\nepoch = 2\n", r"run.toml:3: not TOML: Cannot overwrite a value"),
        (b'a = "x\n', r"run.toml:1: not TOML"),
        (b'a = """x\n', r"run.toml:2: not TOML"),
        (b"[train]\noutput_dir = 'caf\xe9'\n", r"run.toml:2: not UTF-8 \(byte 0xe9\)"),
        (b"\xff\xfe[\x00t\x00", r"run.toml:1: not UTF-8 \(byte 0xff\)"),
        (b"a = " + b"[" * 5000, r"run.toml"),
    ],
)
def test_a_file_that_is_no_toml_is_an_error_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(b"\xef\xbb\xbf" + MODEL.replace("\n", "\r\n").encode() + b"[train]\r\nepoch = 7\r\n")
    config = load_config(path)
    assert config.train.epoch == 7
    assert config.where("train.epoch") == f"{path}:4"


def test_a_file_that_is_not_there_or_is_a_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.toml: no such file"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"cannot be read"):
        load_config(tmp_path)


def test_set_overrides_are_toml_values_and_bare_words(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "[train]\nepoch = 3\n",
        "train.epoch=5",
        "train.output_dir=outputs/other run",
        "train.optm_lr = 1e-4",
        "policy.freeze_pattern=['visual']",
        'mix.source=[{name = "a", path = "b"}]',
        "train.train_policy.mini_batch=4",
        "train.train_policy.mini_batch=8",
    )
    assert (config.train.epoch, config.train.optm_lr, config.train.output_dir) == (5, 1e-4, "outputs/other run")
    assert config.policy.freeze_pattern == ("visual",)
    assert config.mix.source[0].name == "a"
    assert config.train.train_policy.mini_batch == 8
    assert config.where("train.epoch") == "--set"


def test_set_is_checked_like_the_file_and_named_as_the_place(tmp_path: Path) -> None:
    found = problems(tmp_path, "[train]\nepoch = 3\n", "train.epoch='x'", "train.epocs=1")
    assert found == [
        "--set: train.epoch: expected a whole number >= 1, got 'x'",
        "--set: train.epocs: unknown key; did you mean 'epoch'?",
    ]
    assert problems(tmp_path, "[train]\nepoch = 3\n", "train.epoch.x=1") == [
        "--set: train.epoch.x: a value stands above this key; set that one"
    ]


@pytest.mark.parametrize("override", ["train.epoch", "=3", "train.=3", "a b=3", "train.epoch=", "x=[1"])
def test_an_override_that_is_none_is_explained(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match=r"^--set: "):
        load(tmp_path, "", override)


@pytest.mark.parametrize("override", ["train.epoch=1\ny=2", "[train]\nepoch=2"])
def test_an_override_sets_one_key_and_no_more(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match=r"expected (one value|section.key=value)"):
        load(tmp_path, "", override)


def test_a_replaced_table_leaves_no_lines_behind(tmp_path: Path) -> None:
    text = "[[mix.source]]\nname = 'a'\npath = 'b'\nweight = 2\n"
    config = load(tmp_path, text, "mix.source=[{name = 'c', path = 'd'}]")
    assert config.where("mix.source[0].name") == "--set"
    assert config.where("mix.source[0].weight") == str(config.path)


FULL = """\
[custom]
use_i4 = true
train_layers = ["Qwen3VLVisionPatchMerger", 'odd "name" \\\\ tab\\t']
[train]
resume = "outputs/a"
optm_warmup_steps = 0.1
optm_betas = [0.9, 1e-7]
max_num_steps = 12
[train.ckpt]
enable_checkpoint = true
[train.train_policy]
system_prompt = \"\"\"two
lines \u2028 \\u007F end\"\"\"
dataset.split = ["train"]
[[mix.source]]
name = "a"
path = "b"
[[mix.source]]
catalog = "catalogs/demo.toml"
[policy.trainable_map]
"model.layers.*" = true
visual = false
"""


@pytest.mark.parametrize("text", ["", FULL])
def test_resolved_settings_load_back_to_an_equal_config(tmp_path: Path, text: str) -> None:
    config = load(tmp_path, text, "train.epoch=4")
    again = load_config(write(tmp_path, config.resolved_toml(), name="config.toml"))
    assert again == config
    assert again.mix_name == config.mix_name == "run"
    assert again.resolved_toml() == config.resolved_toml()


def test_resolving_changes_what_it_should(tmp_path: Path) -> None:
    """The round trip above would hold for a Config that is equal to everything."""
    assert load(tmp_path, "[train]\nepoch = 2\n") != load(tmp_path, "[train]\nepoch = 3\n")


def test_the_mix_is_named_after_the_file_unless_the_toml_names_it(tmp_path: Path) -> None:
    assert load(tmp_path, "").mix_name == "run"
    assert load(tmp_path, "[mix]\nname = 'other'\n").mix_name == "other"


def test_a_source_knows_its_line(tmp_path: Path) -> None:
    config = load(tmp_path, "[[mix.source]]\nname = 'a'\npath = 'b'\n[[mix.source]]\nname = 'c'\npath = 'd'\n")
    assert [source.line for source in config.mix.source] == [3, 6]


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.toml")), ids=lambda path: str(path.relative_to(CONFIGS)))
def test_the_shipped_tomls_load_and_say_their_mode(path: Path) -> None:
    config = load_config(path)
    family = "Qwen3-VL" if path.stem.startswith("qwen3_vl") else "Nemotron-VL"
    data = "i4 data" if path.stem.endswith("i4") else "normal data"
    assert describe_mode(config).startswith(f"{family} on {data} (")


def test_there_are_four_modes_at_each_size() -> None:
    assert len(list(CONFIGS.glob("*.toml"))) == len(list((CONFIGS / "tiny").glob("*.toml"))) == 4


def test_the_mode_says_how_it_was_decided(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nemotron_h_omni"}')
    path = write(tmp_path, f"[custom]\nuse_i4 = true\n[policy]\nmodel_name_or_path = '{tmp_path}'\n")
    assert describe_mode(load_config(path)) == (
        "Nemotron-VL on i4 data (model_type nemotron_h_omni from config.json; use_i4 = true)"
    )


MIX_CHANGES = [
    "mix.select.where={large='min_side > 64'}",
    "custom.include_video=true",
    "custom.use_i4=true",
    "policy.model_max_length=512",
    "train.train_policy.system_prompt=hello",
    "train.train_policy.dataset.name=other",
    "mix.epoch_samples=9",
    "mix.seed=1",
    "mix.max_rejected_fraction=0.5",
    "mix.max_sample_bytes=10",
    "mix.source=[{name='a', path='b', weight=2}]",
    "mix.source=[{name='c', path='b'}]",
]
MIX_KEEPS = [
    "train.optm_lr=1",
    "train.output_dir=elsewhere",
    "train.epoch=9",
    "mix.root=elsewhere",
    "mix.shards=elsewhere",
    "mix.i4_root=elsewhere",
    "mix.num_workers=3",
    "mix.source=[{name='a', path='moved/b'}]",
    "stream.rows_per_step=4",
]
SOURCE = "[[mix.source]]\nname = 'a'\npath = 'b'\n"


@pytest.mark.parametrize("override", MIX_CHANGES)
def test_what_decides_the_mix_is_in_its_settings(tmp_path: Path, override: str) -> None:
    assert mix_settings(load(tmp_path, SOURCE, override)) != mix_settings(load(tmp_path, SOURCE))


@pytest.mark.parametrize("override", MIX_KEEPS)
def test_paths_and_training_keys_do_not_make_another_mix(tmp_path: Path, override: str) -> None:
    assert mix_settings(load(tmp_path, SOURCE, override)) == mix_settings(load(tmp_path, SOURCE))
