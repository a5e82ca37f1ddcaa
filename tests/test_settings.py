"""Settings: presets, files and flags to one RunConfig."""

from __future__ import annotations

import operator
import os
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rlcas import settings
from rlcas.config import RunConfig
from rlcas.errors import UserError
from rlcas.settings.presets import DEMO, PRESETS


def test_flags_beat_the_file_and_the_file_beats_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("preset: quick\nsampler: {epochs: 7, k: 4}\nclassifier.loss: ce\n")
    config = settings.resolve(given={"sampler.k": "5"}, file=file)
    assert (config.sampler.k, config.sampler.epochs) == (5, 7)
    assert config.classifier.loss == "ce"
    assert config.classifier.width == PRESETS["quick"]["classifier"]["width"]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid_and_named(preset: str) -> None:
    assert settings.resolve(given={"preset": preset}).preset == preset


def test_the_demo_is_valid() -> None:
    assert settings.resolve(given={}, base=DEMO).data == "phantom"


def test_preset_paper_holds_the_papers_figures() -> None:
    config = settings.resolve(given={"preset": "paper"})
    sampler, denoiser = config.sampler, config.synth.denoiser
    assert (sampler.k, sampler.initial_count, sampler.baseline_gamma) == (3, 2, 0.99)
    assert (sampler.lr, sampler.epochs, sampler.action_step) == (1e-3, 30, 2)
    assert (denoiser.sketch_weight, denoiser.lr, denoiser.epochs, denoiser.prediction) == (
        0.1,
        1e-4,
        200,
        "epsilon",
    )
    assert config.synth.autoencoder.factor == 8


def test_what_is_saved_loads_as_the_same_settings(tmp_path: Path) -> None:
    config = settings.resolve(
        given={"preset": "quick", "dataset.split": "0.6,0.2,0.2", "shots.many": "0", "shots.few": "1"}
    )
    settings.save(config, tmp_path)
    assert settings.load(tmp_path) == config
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["dataset"]["split"] == [0.6, 0.2, 0.2]


@given(k=st.integers(1, 64), lr=st.floats(0, 10, allow_nan=False), seed=st.integers(0, 2**31))
def test_flags_of_any_valid_value_arrive_exactly(k: int, lr: float, seed: int) -> None:
    config = settings.resolve(given={"sampler.k": str(k), "sampler.lr": repr(lr), "seed": str(seed)})
    assert (config.sampler.k, config.sampler.lr, config.seed) == (k, lr, seed)


def test_every_setting_has_a_help_text() -> None:
    assert [flag.key for flag in settings.flags() if not flag.help] == []


@pytest.mark.parametrize(("text", "counts"), [("3", 3), ("0,2,4", (0, 2, 4)), ("[0, 2]", (0, 2))])
def test_the_initial_count_is_one_number_or_a_list_wherever_it_is_written(
    tmp_path: Path, text: str, counts: object
) -> None:
    by_flag = settings.resolve(given={"sampler.initial_count": text})
    assert by_flag.sampler.initial_count == counts
    settings.save(by_flag, tmp_path)
    assert settings.load(tmp_path) == by_flag
    in_yaml = text if text.isdecimal() else f"[{text.strip('[]')}]"
    (tmp_path / "own.yaml").write_text(f"sampler.initial_count: {in_yaml}\n")
    assert settings.resolve(given={}, file=tmp_path / "own.yaml") == by_flag
    assert settings.of({"sampler": {"initial_count": counts}}) == by_flag


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("dataset.levels", "any,class", ("any", "class")),
        ("dataset.drop", "Xa", ("Xa",)),
        ("dataset.split", "0.6, 0.2, 0.2", (0.6, 0.2, 0.2)),
        ("dataset.window", "0,255", (0.0, 255.0)),
        ("sampler.initial_count", "2,3", (2, 3)),
    ],
)
def test_a_list_is_text_with_commas_wherever_it_is_written(
    tmp_path: Path, key: str, text: str, value: object
) -> None:
    by_flag = settings.resolve(given={key: text})
    assert operator.attrgetter(key)(by_flag) == value
    section, _, name = key.partition(".")
    (tmp_path / "own.yaml").write_text(f"{section}:\n  {name}: {text}\n")
    assert settings.resolve(given={}, file=tmp_path / "own.yaml") == by_flag
    assert settings.of({section: {name: text}}) == settings.of({key: text}) == by_flag


def test_a_list_that_is_text_is_checked_member_by_member() -> None:
    with pytest.raises(UserError, match=r"dataset.split is 'x': input should be a valid number"):
        settings.of({"dataset": {"split": "x,1,1"}})


def test_none_is_written_as_none() -> None:
    assert settings.resolve(given={"preset": "quick", "classifier.width": "none"}).classifier.width is None


@pytest.mark.parametrize(
    ("given_flags", "message"),
    [
        (
            {"synth.generation.guidance_interval": "0.5"},
            r"^synth\.generation\.guidance_interval is \['0\.5'\]: it takes more values; see --help for --synth",
        ),
        (
            {"sampler.k": "0"},
            r"^sampler\.k is '0': input should be greater than or equal to 1; see --help for --samp",
        ),
        (
            {"sampler.lr": "inf"},
            r"^sampler\.lr is 'inf': input should be a finite number; see --help for --sampler\.lr$",
        ),
        ({"sampler.kk": "1"}, r"^unknown setting sampler\.kk: did you mean sampler\.k\?$"),
        ({"gamma": "1"}, r"^unknown setting gamma: did you mean"),
        ({"zzzzzz": "1"}, r"^unknown setting zzzzzz: `rlcas run --help` lists the settings$"),
        ({"preset": "fast"}, r"^preset is 'fast': input should be 'quick', 'paper' or 'best'"),
        (
            {"sampler.initial_count": "20"},
            r"^sampler\.initial_count 20 is above sampler\.max_count 16: lower the first",
        ),
        (
            {"sampler.action_step": "20"},
            r"^sampler\.action_step 20 is above sampler\.max_count 16: lower the first or raise the second",
        ),
        (
            {"synth.denoiser.label_drop": "0"},
            r"^synth\.generation\.guidance 1\.5 needs unlabelled training, but",
        ),
        ({"shots.many": "0"}, r"^shots\.many is \(0,\) and shots\.few is None: give both or neither$"),
        ({"shots.few_below": "200"}, r"^shots\.few_below 200 overlaps shots\.many_above 100: set few_below to"),
        ({"sampler.k": "0", "seed": "-1"}, r"\(and 1 more\)$"),
        ({"sampler.initial_count": "0,20"}, r"^sampler\.initial_count 20 is above sampler\.max_count 16"),
        (
            {"sampler.initial_count": "2,x"},
            r"^sampler\.initial_count is 'x': input should be a valid integer.*for --sampler.initial_count$",
        ),
        (
            {"sampler.initial_count": "-2"},
            r"^sampler\.initial_count is '-2': input should be greater than or equal to 0; see --help",
        ),
    ],
)
def test_a_wrong_setting_is_one_line_with_the_fix(given_flags: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        settings.resolve(given=given_flags)
    assert "\n" not in str(caught.value)


def test_a_pipe_is_refused_but_what_the_shell_pipes_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "settings")
    with pytest.raises(
        UserError, match=r"^--config .*settings is a pipe, which may never end: name a YAML file$"
    ):
        settings.resolve(given={}, file=tmp_path / "settings")
    with pytest.raises(UserError, match=r"^/.*settings is a pipe, which may never end: name a YAML file$"):
        settings.read_yaml(tmp_path / "settings")
    read, write = os.pipe()
    os.write(write, b"seed: 7\n")
    os.close(write)
    assert settings.resolve(given={}, file=Path(f"/dev/fd/{read}")).seed == 7
    os.close(read)


ALIASES_OF_ALIASES = "seed: [&a0 x" + "".join(f",&a{i} [*a{i - 1},*a{i - 1}]" for i in range(1, 40)) + "]"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r" cannot be read: No such file or directory: name an existing YAML file$"),
        (b"a: [1", r" is not YAML: .*: correct the file$"),
        (b"\xff\xfe\x00", r" is not YAML: .*: save it as UTF-8$"),
        (b"[" * 60_000, r" is not YAML: it nests deeper than 50 levels: correct the file$"),
        (b"- 1\n", r" holds list, not settings: write lines like `seed: 1`$"),
        (b"", r" is empty: write lines like `seed: 1`$"),
        (b"#" * 65_537, r" has 65537 bytes, settings 65536 at most: name another file$"),
        (ALIASES_OF_ALIASES.encode(), r" holds over 100000 values, by aliases of aliases: write them out$"),
        (b'seed: "\\ud83e"', r" is not YAML: .* holds half a character: write the whole character, or \\U and"),
        (b"seed: 1\nseed: 2\n", r" line 2: seed is set twice, first in line 1: keep one$"),
        (
            b"seed: 010\n",
            r" line 1: 010 starts with 0, which YAML reads as octal: write it without the 0, or in",
        ),
    ],
)
def test_a_wrong_file_is_named_with_the_flag_only_where_the_flag_named_it(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = tmp_path / settings.CONFIG_FILE
    if content is not None:
        file.write_bytes(content)
    for read, name in (
        (lambda: settings.resolve(given={}, file=file), f"--config {file}"),
        (lambda: settings.read_yaml(file), str(file)),
    ):
        with pytest.raises(UserError, match=f"^{re.escape(name)}{message}") as caught:
            read()
        assert "\n" not in str(caught.value)
    if content is not None:
        with pytest.raises(UserError, match=f"^{re.escape(str(file))}{message}"):
            settings.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("sampler.k: 3\nsampler:\n  k: 5\n", "sampler.k"),
        ("sampler: {k: 5, lr: 0.1}\nsampler.k: 5\n", "sampler.k"),
        ("synth: {denoiser: {lr: 1}}\nsynth.denoiser: {max_steps: 2, lr: 3}\n", "synth.denoiser.lr"),
        ("synth.denoiser.lr: 1\nsynth: {denoiser: {lr: null}}\n", "synth.denoiser.lr"),
    ],
)
def test_a_setting_by_its_dotted_key_and_in_its_section_is_refused(tmp_path: Path, text: str, key: str) -> None:
    file = tmp_path / settings.CONFIG_FILE
    file.write_text(text)
    with pytest.raises(
        UserError, match=rf"^{re.escape(key)} in --config .* is set twice, by its dotted key and in"
    ):
        settings.resolve(given={}, file=file)
    with pytest.raises(
        UserError, match=rf"^{re.escape(key)} in settings is set twice, by its dotted key and in its"
    ):
        settings.of(yaml.safe_load(text))


def test_dotted_keys_and_a_section_add_up_and_leave_what_was_given_alone(tmp_path: Path) -> None:
    given = {
        "sampler": {"k": 5},
        "sampler.lr": 0.1,
        "synth.denoiser": {"lr": 0.2},
        "synth.denoiser.max_steps": 7,
    }
    copy = {
        "sampler": {"k": 5},
        "sampler.lr": 0.1,
        "synth.denoiser": {"lr": 0.2},
        "synth.denoiser.max_steps": 7,
    }
    config = settings.of(given)
    assert (config.sampler.k, config.sampler.lr) == (5, 0.1)
    assert (config.synth.denoiser.lr, config.synth.denoiser.max_steps) == (0.2, 7)
    assert given == copy
    for text in ("sampler.k: 1\nsampler: 3\n", "sampler: 3\nsampler.k: 1\n"):
        (tmp_path / "own.yaml").write_text(text)
        with pytest.raises(UserError, match=r": sampler is given as a value and as a section: keep one$"):
            settings.resolve(given={}, file=tmp_path / "own.yaml")


def test_a_section_that_is_a_value_too_is_refused(tmp_path: Path) -> None:
    file = tmp_path / settings.CONFIG_FILE
    file.write_text("sampler: 3\nsampler.k: 1\n")
    message = r"^sampler\.k in {}/.*: sampler is given as a value and as a section: keep one$"
    with pytest.raises(UserError, match=message.format("--config ")):
        settings.resolve(given={}, file=file)
    with pytest.raises(UserError, match=message.format("")):
        settings.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sampler: {k: 1}\nseed: 1\nsampler:\n  lr: 1\n", r"line 3: sampler is set twice, first in line 1: keep one$"),
        ("sampler:\n  k: 1\n  k: 2\n", r"line 3: k is set twice, first in line 2: keep one$"),
        ("sampler: {k: 1, lr: 0.1,\n  'k': 2}\n", r"line 2: k is set twice, first in line 1: keep one$"),
        ("compare:\n  pools:\n    mgdm: a\n    mgdm: b\n", r"line 4: mgdm is set twice, first in line 3: keep one$"),
        ("sampler.k: 1\nsampler.k: 1\n", r"line 2: sampler\.k is set twice, first in line 1: keep one$"),
    ],
)  # fmt: skip
def test_a_key_or_section_that_a_file_sets_twice_is_refused_with_its_line(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        settings.resolve(given={}, file=tmp_path / "x.yaml")


def test_the_same_key_in_two_sections_and_merge_keys_are_read(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(
        "classifier: &shared {lr: 0.1, weight_decay: 0.5}\n"
        "synth: {denoiser: &denoiser {<<: *shared, lr: 0.2, epochs: 3},\n"
        "  mgdm: {<<: [*denoiser, *shared], lr: 0.3}}\n"
    )
    config = settings.resolve(given={}, file=file)
    parts = (config.classifier, config.synth.denoiser, config.synth.mgdm)
    assert [(part.lr, part.weight_decay) for part in parts] == [(0.1, 0.5), (0.2, 0.5), (0.3, 0.5)]
    assert config.synth.mgdm.epochs == 3


@pytest.mark.parametrize("number", ["010", "-07", "+01", "00", "0_7", "!!int 010"])
def test_an_integer_that_starts_with_zero_is_refused(tmp_path: Path, number: str) -> None:
    (tmp_path / "x.yaml").write_text(f"data: phantom\nsampler: {{initial_count: [1, {number}]}}\n")
    shown = re.escape(number.removeprefix("!!int "))
    with pytest.raises(
        UserError, match=rf"line 2: {shown} starts with 0, which YAML reads as octal: write it with"
    ):
        settings.resolve(given={}, file=tmp_path / "x.yaml")


@pytest.mark.parametrize(("number", "seed"), [("0", 0), ("10", 10), ("0x10", 16), ("0b11", 3), ("'010'", 10)])
def test_other_integers_are_read_as_before(tmp_path: Path, number: str, seed: int) -> None:
    (tmp_path / "x.yaml").write_text(f"seed: {number}\nsampler.lr: 0.05\n")
    assert settings.resolve(given={}, file=tmp_path / "x.yaml").seed == seed


def test_a_folder_without_settings_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"is not a run's folder: it has no config\.yaml; name the --out of a run$"
    ):
        settings.load(tmp_path)


def test_settings_cannot_be_changed_after_they_are_checked() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().seed = 3  # type: ignore[misc]


def test_python_states_settings_nested_or_dotted_over_a_preset() -> None:
    nested = settings.of({"preset": "quick", "sampler": {"k": 5}})
    dotted = settings.of({"preset": "quick", "sampler.k": 5})
    assert nested == dotted == settings.resolve(given={"preset": "quick", "sampler.k": "5"})


def test_some_settings_of_a_run_can_be_overridden() -> None:
    config = settings.of({"preset": "quick", "sampler": {"k": 5}})
    assert settings.override(config, {"sampler.lr": "0.5"}).sampler == config.sampler.model_copy(
        update={"lr": 0.5}
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sampler: {k: 0}", r"config\.yaml: sampler\.k is 0: input should be"),
        ("samplr: {k: 1}", r"config\.yaml: unknown setting samplr"),
    ],
)
def test_a_wrong_value_in_the_settings_of_a_run_names_their_file(
    text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        settings.load(tmp_path)


def test_the_package_offers_what_the_commands_do() -> None:
    import rlcas

    assert rlcas.settings_of is settings.of
    assert "run" in dir(rlcas)
    with pytest.raises(AttributeError, match="module 'rlcas' has no attribute 'walk': it has run, resume"):
        _ = rlcas.walk


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("synth.autoencoder.factor", "8", 8),
        ("dataset.channels", "3", 3),
        ("dataset.channels", "none", None),
        ("synth.denoiser.prediction", "epsilon", "epsilon"),
    ],
)
def test_a_choice_typed_as_a_flag_becomes_its_value(key: str, text: str, value: object) -> None:
    config = settings.resolve(given={key: text})
    assert operator.attrgetter(key)(config) == value
    with pytest.raises(UserError, match=rf"{key} is 'seven'"):
        settings.resolve(given={key: "seven"})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"agents": "paper", "lr": 1e-3, "reward": "cubic", "advantages": "baseline", "team_share": None}),
        (
            {"agents": "state"},
            {"lr": 0.15, "reward": "per_class", "advantages": "normalised", "team_share": 1.0},
        ),
        (
            {"agents": "state", "lr": "0.01", "reward": "rank"},
            {"lr": 0.01, "reward": "rank", "team_share": None},
        ),
        ({"agents": "response"}, {"exploration": 0.2, "memory_epochs": 15.0, "reward": "cubic"}),
        ({"agents": "response", "exploration": "0"}, {"exploration": 0.0, "memory_epochs": 15.0}),
        (
            {"agents": "dose"},
            {
                "lr": 1.0,
                "initial_count": 0,
                "exploration": 1.0,
                "memory_epochs": 15.0,
                "benefit_probability": 0.8,
            },
        ),
        ({"agents": "dose", "benefit_probability": "0.9", "k": "1"}, {"benefit_probability": 0.9, "k": 1}),
        ({"reward": "per_class"}, {"agents": "paper", "team_share": 1.0, "exploration": None}),
    ],
)
def test_agents_and_rewards_have_their_own_defaults_and_stated_settings_win(
    given: dict[str, str], expected: dict[str, object], tmp_path: Path
) -> None:
    config = settings.resolve(given={f"sampler.{name}": value for name, value in given.items()})
    assert {name: getattr(config.sampler, name) for name in expected} == expected
    settings.save(config, tmp_path)
    assert settings.load(tmp_path) == config, "config.yaml holds the values themselves"
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())["sampler"]
    assert {name: written[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            {"exploration": "0.1"},
            r"^sampler.exploration 0.1 is for sampler.agents response, dose, dose_permuted, not for paper: leave",
        ),
        (
            {"benefit_probability": "0.9", "agents": "response"},
            r"^sampler.benefit_probability 0.9 is for sampler.agents dose, dose_permuted, not for response: leave",
        ),
        (
            {"exploration": "0", "agents": "dose"},
            r"^sampler.exploration 0.0 leaves sampler.agents dose nothing to learn from: raise it",
        ),
        ({"memory_epochs": "3", "agents": "state"}, r"^sampler.memory_epochs 3.0 is for .* not for state"),
        (
            {"entropy_bonus": "0.1", "agents": "uniform"},
            r"^sampler.entropy_bonus 0.1 has no effect on sampler.agents uniform, .*: set it to 0",
        ),
        (
            {"agents": "response", "observation": "metric,recall"},
            r"^sampler.observation metric,recall leaves out composition, which .* response must observe: add it$",
        ),
        ({"team_share": "1"}, r"^sampler.team_share 1.0 is for sampler.reward per_class, not for cubic: leave"),
        (
            {"k": "1", "agents": "state"},
            r"^sampler.k 1 leaves nothing to compare, but sampler.reward is per_class and sampler.advantages norm",
        ),
        (
            {"k": "1", "reward": "rank"},
            r"^sampler.k 1 leaves .* sampler.reward is rank and .* baseline: raise k",
        ),
        (
            {"k": "1", "advantages": "normalised"},
            r"^sampler.k 1 leaves .* sampler.reward is cubic and .* normalised",
        ),
    ],
)
def test_an_error_about_two_settings_of_the_sampler_names_both_values(given: dict[str, str], text: str) -> None:
    with pytest.raises(UserError, match=text):
        settings.resolve(given={f"sampler.{name}": value for name, value in given.items()})


@pytest.mark.parametrize("agents", ["response", "uniform", "constant"])
def test_agents_without_gradient_may_run_one_episode(agents: str) -> None:
    given = {"sampler.k": "1", "sampler.agents": agents, "sampler.reward": "rank"}
    assert settings.resolve(given=given).sampler.k == 1


def test_a_sweeps_folder_is_not_a_runs(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text("seed: 1\n")
    with pytest.raises(
        UserError,
        match=r"is a sweep's folder: continue it with `rlcas sweep --resume`, or name one of its trials$",
    ):
        settings.load(tmp_path)
