"""Passwords in addresses: refused as settings, and never printed or written."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from fake_run import fake_records

from rlcas import doctor, settings
from rlcas.config import RunConfig
from rlcas.credentials import has_credentials, without_credentials
from rlcas.doctor.finding import ok
from rlcas.errors import RunError, UserError
from rlcas.runs.epoch_log import EPOCHS_FILE, append_epoch
from rlcas.storage import atomic

SECRET = "hunter2"

HIDDEN = {
    f"s3://KEY:{SECRET}@bucket/x": "s3://***@bucket/x",
    f"npz:s3://KEY:ab/{SECRET}+c=@bucket/x.npz": "npz:s3://***@bucket/x.npz",
    f"http://user:{SECRET}@host:80/": "http://***@host:80/",
    f"https://{SECRET}@host/a": "https://***@host/a",
    f"redis://:{SECRET}@host:6379": "redis://***@host:6379",
    f"see ftp://u:p@{SECRET}@host/x, or https://a.b/c": "see ftp://***@host/x, or https://a.b/c",
    f"az://c/x?sv=1&sig={SECRET}&se=2": "az://c/x?sv=1&sig=***&se=2",
    f"s3://b?access_key=A&secret_key={SECRET}": "s3://b?access_key=***&secret_key=***",
    f"https://b/x?X-Amz-Signature={SECRET}&X-Amz-Date=1": "https://b/x?X-Amz-Signature=***&X-Amz-Date=1",
}
PLAIN = [
    "breastmnist",
    "folder:/data/a:b@c",
    "s3://bucket/a:b@c",
    "http://minio:9000/b/a@b",
    "http://[::1]:8265/x@y",
    "abfs://container@account.dfs.core.windows.net/p",
    "sftp://user@host/x",
    "ray://head:10001",
    "start http://head:8265, or ask me@example.org",
    "package.module:object",
]


@pytest.mark.parametrize("text", HIDDEN)
def test_a_password_in_an_address_is_hidden_and_the_rest_is_shown(text: str) -> None:
    assert without_credentials(text) == HIDDEN[text]
    assert has_credentials(text) and not has_credentials(HIDDEN[text])


@pytest.mark.parametrize("text", PLAIN)
def test_an_address_without_a_password_stays_as_it_is(text: str) -> None:
    assert without_credentials(text) == text and not has_credentials(text)


ADDRESS = f"s3://KEY:{SECRET}@bucket/x"
KEYS = ("data", "out", "pool", "synth.autoencoder.pretrained", "synth.sketch_weights", "method.lift.pretrained")


@pytest.mark.parametrize("key", KEYS)
def test_a_setting_with_a_password_is_refused_by_its_name_and_not_echoed(key: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(f"{key}: {ADDRESS}\n")
    for resolve in (
        lambda: settings.resolve(given={key: ADDRESS}),
        lambda: settings.resolve(given={}, file=file),
    ):
        with pytest.raises(
            UserError, match=rf"^{key} .*has a password or key in its address.*: leave it out"
        ) as raised:
            resolve()
        assert SECRET not in str(raised.value) and "\n" not in str(raised.value)


def test_a_list_of_settings_and_a_named_pool_are_checked_too() -> None:
    with pytest.raises(UserError, match=r"^compare\.methods s3://\*\*\*@bucket/x has a password"):
        settings.of_comparison({"compare.methods": ["ce", ADDRESS]})
    with pytest.raises(UserError, match=r"^compare\.pools s3://\*\*\*@bucket/x has a password"):
        settings.of_comparison({"compare": {"pools": {"mgdm": ADDRESS}}})


def test_a_trial_of_a_sweep_whose_point_has_a_password_is_refused() -> None:
    with pytest.raises(UserError, match=r"^data s3://\*\*\*@bucket/x has a password"):
        settings.of_sweep({}, {"data": ADDRESS})


def test_settings_made_in_python_are_refused_too() -> None:
    with pytest.raises(ValueError, match="data s3://\\*\\*\\*@bucket/x has a password or key in its address"):
        RunConfig(data=ADDRESS)


def test_a_wrong_value_with_a_password_is_quoted_without_it() -> None:
    with pytest.raises(UserError, match=r"sampler\.k s3://\*\*\*@bucket/x has a password"):
        settings.resolve(given={"sampler.k": ADDRESS})


@pytest.mark.parametrize("error", [UserError, RunError])
def test_no_error_of_ours_shows_a_password(error: type[Exception]) -> None:
    assert str(error(f"{ADDRESS} cannot be read")) == "s3://***@bucket/x cannot be read"


def test_no_text_that_is_written_into_a_folder_holds_a_password(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "cell.json", {"reason": f"{ADDRESS} is gone"})
    assert json.loads((tmp_path / "cell.json").read_text()) == {"reason": "s3://***@bucket/x is gone"}


def test_a_traceback_among_the_epochs_holds_no_password(tmp_path: Path) -> None:
    record = next(iter(fake_records(2, 1)))
    reports = tuple(replace(report, traceback=f"OSError: {ADDRESS}") for report in record.reports)
    append_epoch(tmp_path, replace(record, reports=reports))
    text = (tmp_path / EPOCHS_FILE).read_text()
    assert SECRET not in text and "OSError: s3://***@bucket/x" in text


def test_the_doctor_prints_no_password_and_no_variable_that_it_does_not_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOME_API_KEY", SECRET)
    monkeypatch.setenv("RLCAS_DATA", ADDRESS)
    checks = {"data": doctor.CHECKS["data"], "cores": doctor.CHECKS["cores"], "x": lambda: ok(ADDRESS)}
    doctor.report(doctor.examine(checks))
    printed = capsys.readouterr().out
    assert "RLCAS_DATA s3://***@bucket/x is not a folder" in printed and "x: s3://***@bucket/x" in printed
    assert SECRET not in printed and os.environ["SOME_API_KEY"] == SECRET
