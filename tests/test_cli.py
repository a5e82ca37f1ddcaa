"""The command line: what it answers, and with which exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlcas.cli import ALL_COMMANDS, main


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in ALL_COMMANDS)


def test_no_words_are_answered_with_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "usage: rlcas COMMAND" in capsys.readouterr().out


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("rlcas 0.")


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["doctor", "--help"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys\nfrom rlcas.cli import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'ray', 'numpy', 'diffusers', 'gymnasium', 'matplotlib', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_help_of_run_lists_settings_by_section(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["run", "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for words in (
        "sampler settings:",
        "--sampler.baseline_gamma",
        "--synth.denoiser.sketch_weight",
        "--dry-run",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rnu"], "rlcas: unknown command 'rnu': use one of demo, doctor, run"),
        (["synth", "sampel"], "rlcas: unknown command 'synth sampel': use one of demo, doctor, run"),
        (["run", "--sampler.kk", "3"], "rlcas: unknown setting sampler.kk: did you mean sampler.k?"),
        (
            ["run", "--sampler.k=0", "--dry-run"],
            "rlcas: sampler.k is '0': input should be greater than or equal to 1",
        ),
        (
            ["run", "--config", "gone.yaml"],
            "rlcas: --config gone.yaml cannot be read: No such file or directory: name",
        ),
        (
            ["train"],
            "rlcas: pool is not set: name one with --pool DIR or --pool folder:PATH, or use `rlcas run`",
        ),
        (
            ["synth", "sample", "RUN", "--synth.generation.steps", "5"],
            "rlcas: synth.generation.steps is not a setting of `rlcas synth sample`, which keeps the run's own",
        ),
        (["report"], "rlcas: the following arguments are required: RUN"),
        (
            ["report", "nowhere"],
            "rlcas: nowhere is not a run's folder: it has no config.yaml; name the --out of a run",
        ),
        (
            ["resume", "nowhere"],
            "rlcas: nowhere is not a run's folder: it has no config.yaml; name the --out of a run",
        ),
        (["run", "--data", "npz:gone.npz"], "gone.npz"),
        (["run", "--data", f"npz:{'x' * 300}"], "shorten the name"),
        (["run", "--data", "nosuchset"], "nosuchset"),
        (
            ["run", "--sampler.reward", "nope", "--dry-run"],
            "rlcas: sampler.reward 'nope' is unknown: use one of cubic",
        ),
        (["run", "--classifier.loss", "nope"], "rlcas: classifier.loss 'nope' is unknown: use one of"),
    ],
)
def test_what_the_user_got_wrong_is_one_line_and_status_2(
    words: list[str], message: str, tmp_path: Path
) -> None:
    done = subprocess.run([sys.executable, "-m", "rlcas", *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.startswith("rlcas: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_run_on_a_pool_imports_no_diffusers() -> None:
    """It takes as long to import as all else; the workers that train a comparison's cells need none either."""
    code = (
        "import sys\n"
        "from cluster.comparison import cell, compare\n"
        "from cluster.runs import checks, run, training\n"
        "from synth.generators import GENERATORS\n"
        "assert 'diffusers' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["doctor", "--help"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_is_gone_ends_the_output_quietly(words: list[str], unbuffered: str) -> None:
    command = [sys.executable, "-m", "rlcas", *words]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command, stdout=writer, stderr=subprocess.PIPE, text=True, env=environment, timeout=60
    )
    os.close(writer)
    # argparse itself ignores a closed pipe.
    assert (done.returncode, done.stderr) in ((141, ""), (0, ""))
    assert words != ["--help"] or done.returncode == 141


@pytest.mark.parametrize(
    "variables",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
)
def test_letters_that_the_terminal_lacks_are_printed_as_escapes(variables: dict[str, str]) -> None:
    from_python = "from rlcas.console import say; say('L\\xe4sion')"
    as_word = "import sys; from rlcas.cli import main; sys.exit(main(['L\\xe4sion']))"
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONIOENCODING", "PYTHONUTF8")}
    for code in (from_python, as_word):
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env={**kept, **variables}, capture_output=True, timeout=60)
        assert rb"L\xe4sion" in done.stdout + done.stderr and b"Traceback" not in done.stderr
