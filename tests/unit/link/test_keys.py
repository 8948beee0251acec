"""Keys of a run: who gets which, and which files they may come from."""

from __future__ import annotations

import io
import json
import stat
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from cosim.link.keys import Credential, CredentialError, RunKeys, load_credential, parse_credential, write_credential


@pytest.fixture(scope="module")
def keys() -> RunKeys:
    """The keys of one run."""
    return RunKeys.generate(["w0", "its0"])


def test_everybody_has_a_pair_of_its_own(keys: RunKeys) -> None:
    """Each credential names its holder and the hub's public key; its public key is on the allow-list under that name."""
    found = [parse_credential(keys.credential(name), "test") for name in ("w0", "its0")]
    assert [c.name for c in found] == ["w0", "its0"]
    assert {c.server_key.encode() for c in found} == {keys.public}
    assert keys.allowed == {c.public_key.encode(): c.name for c in found}
    assert len({keys.secret, *(c.secret_key.encode() for c in found)}) == 3
    assert zmq.curve_public(keys.secret) == keys.public


def test_runs_have_nothing_in_common(keys: RunKeys) -> None:
    """A second run's keys are all new."""
    other = RunKeys.generate(["w0", "its0"])
    assert not {other.public, other.secret, *other.allowed} & {keys.public, keys.secret, *keys.allowed}


def test_the_hub_gets_no_secret_but_its_own(keys: RunKeys) -> None:
    """What goes to the hub's process has the allow-list, and can make no credential."""
    order = keys.for_hub()
    assert not any(
        json.loads(keys.credential(name))["secret_key"].encode() in repr(order).encode() for name in ("w0", "its0")
    )
    hub = RunKeys.from_order(order)
    assert (hub.public, hub.secret, hub.allowed) == (keys.public, keys.secret, keys.allowed)
    with pytest.raises(KeyError):
        hub.credential("w0")


def test_no_text_form_shows_a_secret(keys: RunKeys) -> None:
    """repr of keys and of a credential, as a log or a traceback would show them, hold no secret key."""
    credential = parse_credential(keys.credential("w0"), "test")
    shown = f"{keys!r} {keys} {credential!r} {credential}"
    assert "w0" in shown
    assert credential.secret_key not in shown
    assert keys.secret.decode() not in shown


@pytest.mark.parametrize("names", [["a", "a"], [""], ["x" * 256]])
def test_a_name_is_new_and_fits(names: list[str]) -> None:
    """Two peers of one name, or a name that no User-Id can carry, are refused."""
    with pytest.raises(ValueError, match="name must be new"):
        RunKeys.generate(names)


def test_a_file_is_for_its_owner(tmp_path: Path, keys: RunKeys) -> None:
    """A credential is written with mode 0600 and never over another file; once others may read it, it is refused with advice."""
    path = tmp_path / "w0.credential"
    write_credential(path, keys.credential("w0"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_credential(path) == parse_credential(keys.credential("w0"), "test")
    with pytest.raises(FileExistsError):
        write_credential(path, b"")
    for mode in (0o640, 0o604, 0o620):
        path.chmod(mode)
        with pytest.raises(CredentialError, match=f"mode 0600 or 0400.*not {mode:#05o}.*chmod 600"):
            load_credential(path)
    with pytest.raises(CredentialError, match="No such file"):
        load_credential(tmp_path / "nothing")


def test_a_credential_comes_on_stdin(monkeypatch: pytest.MonkeyPatch, keys: RunKeys) -> None:
    """ "-" reads it from stdin."""
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(keys.credential("its0"))))
    assert load_credential("-").name == "its0"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"secret_key": "short"}, "secret_key .* must be a key of 40 Z85 characters"),
        ({"server_key": '"' * 40}, "server_key .* must be a key"),
        ({"server_key": None}, "server_key .* must be a key"),
        ({"name": ""}, "name .* must be text"),
        ({"more": 1}, "must be an object with name, server_key, public_key, secret_key"),
        ({"public_key": zmq.curve_keypair()[0].decode()}, "public_key .* must belong to its secret_key"),
    ],
)
def test_a_wrong_credential_names_the_field(keys: RunKeys, change: dict[str, object], what: str) -> None:
    """What is wrong is named, and where it came from; the content is not shown."""
    good = json.loads(keys.credential("w0"))
    with pytest.raises(CredentialError, match=what) as caught:
        parse_credential(json.dumps({**good, **change}).encode(), "FILE")
    assert "FILE" in str(caught.value)
    assert good["secret_key"] not in str(caught.value)


@given(st.one_of(st.binary(max_size=200), st.integers(4097, 5000).map(lambda n: b" " * n)))
def test_reading_is_total(text: bytes) -> None:
    """Whatever is read, it is a credential or a CredentialError."""
    try:
        assert isinstance(parse_credential(text, "test"), Credential)
    except CredentialError:
        pass
