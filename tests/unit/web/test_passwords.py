"""Files of htpasswd: which forms, what is refused, and what a change of the file does."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from passlib.context import CryptContext

from watchman.errors import WatchmanError
from watchman.web import passwords
from watchman.web.passwords import FORMS, BusyWithPasswords, PasswordFile

QUICK = CryptContext(
    list(FORMS), bcrypt__rounds=4, sha512_crypt__rounds=1000, sha256_crypt__rounds=1000
)
# What openssl's passwd and Apache's htpasswd make of "secret".
FOREIGN = (
    "$apr1$yU8Y6wZx$pdPCTaUP5B1BC0NNYDPp71",
    "$5$abcdefgh$gruCpC7VkOTspMQTTSAR8mtlO9Upms.fwqE5y16JVM.",
    "$6$abcdefgh$ltjgWl6579NluT/Vi1nwEvcil.G5Nbc4NiXZaNGStk8PSwGf"
    "Qv72N2CKPPrVACtLtip/cZ/1GM/O6IND4WQhG.",
    "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
)


def made(path: Path, **users: str) -> PasswordFile:
    lines = [f"{name}:{known}" for name, known in users.items()]
    path.write_text("\n".join(["# who may look", "", *lines]) + "\n")
    return PasswordFile(str(path))


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_taken(tmp_path: Path, form: str) -> None:
    known = str(QUICK.handler(form).hash("pässword"))
    found = made(tmp_path / "htpasswd", anna=known)
    for _ in range(2):  # and once more, when it has been looked at
        assert found.accepts("anna", "pässword")
        assert not found.accepts("anna", "password")
        assert not found.accepts("anna", "")
        assert not found.accepts("berta", "pässword")
        assert not found.accepts("", "")


@pytest.mark.parametrize("known", FOREIGN)
def test_so_is_what_other_programs_write(tmp_path: Path, known: str) -> None:
    assert made(tmp_path / "htpasswd", anna=known).accepts("anna", "secret")


def test_apaches_name_for_bcrypt_is_known(tmp_path: Path) -> None:
    known = str(QUICK.handler("bcrypt").hash("secret")).replace("$2b$", "$2y$", 1)
    assert made(tmp_path / "htpasswd", anna=known).accepts("anna", "secret")


@pytest.mark.parametrize("password", ["x" * 100, "x" * 10_000, "a\0b", "\udcff", "€" * 60])
def test_odd_passwords_are_nobodys_and_no_error(tmp_path: Path, password: str) -> None:
    for form in FORMS:
        found = made(tmp_path / form, anna=str(QUICK.handler(form).hash("secret")))
        assert not found.accepts("anna", password)


@pytest.mark.parametrize("line", ["anna", "anna:", "anna:secret", "anna:x7zhS8cuFBXbg", ":$apr1$x"])
def test_what_is_no_password_in_a_form_that_is_taken_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "htpasswd"
    path.write_text(f"# comment\n{line}\n")
    with pytest.raises(WatchmanError) as error:
        PasswordFile(str(path))
    assert str(error.value).startswith(f"--auth: {path}, line 2: ")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("text", [None, b"", b"# nobody\n", b"\xff\xfe"])
def test_without_anybody_it_is_refused(tmp_path: Path, text: bytes | None) -> None:
    path = tmp_path / "htpasswd"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(WatchmanError, match=r"^--auth: .*'htpasswd -B"):
        PasswordFile(str(path))


def test_a_change_counts_at_once_and_a_mistake_lets_nobody_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "htpasswd"
    first, second = (str(QUICK.handler("ldap_sha1").hash(word)) for word in ("one", "two"))
    found = made(path, anna=first)
    assert found.accepts("anna", "one")
    path.write_text(f"anna:{second}\nberta:{first}\n")
    assert not found.accepts("anna", "one")
    assert found.accepts("anna", "two")
    assert found.accepts("berta", "one")
    caplog.set_level(logging.ERROR)
    path.write_text("anna\n")
    for _ in range(2):
        assert not found.accepts("anna", "two")
    os.unlink(path)
    assert not found.accepts("anna", "two")
    assert [one.getMessage().split(":")[0] for one in caplog.records] == ["Nobody is let in"]
    made(path, anna=first)
    assert found.accepts("anna", "one")


def test_one_that_is_away_for_a_while_counts_when_it_is_back(tmp_path: Path) -> None:
    """The very same file: nothing about it has changed."""
    path = tmp_path / "htpasswd"
    found = made(path, anna=str(QUICK.handler("ldap_sha1").hash("one")))
    path.rename(tmp_path / "away")
    assert not found.accepts("anna", "one")
    (tmp_path / "away").rename(path)
    assert found.accepts("anna", "one")


def test_who_guesses_keeps_nobody_out_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "BUSY", 0.01)
    found = made(tmp_path / "htpasswd", anna=str(QUICK.handler("ldap_sha1").hash("one")))
    assert found.accepts("anna", "one")
    with found._lock:
        assert found.accepts("anna", "one"), "it has been looked at before"
        with pytest.raises(BusyWithPasswords):
            found.accepts("anna", "two")
