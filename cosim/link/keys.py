"""Keys of one run: a CURVE pair for the hub and one for each worker, host or foreign node that may connect to it.

Every run has new keys: CURVE (rfc.zeromq.org/spec/26) has no rotation within a session, and a key that no longer opens
anything needs no revocation. What a peer needs is its `Credential`; it travels as JSON text by a file of mode 0600, or on
stdin, never in an argv, an environment or a log. The hub keeps `RunKeys`: its own secret key and the exact allow-list.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import zmq

KEY_SIZE = 40
"""Characters of a key as Z85 text (rfc.zeromq.org/spec/32) of its 32 bytes."""
NAME_MAX_BYTES = 255
CREDENTIAL_MAX_BYTES = 4096
_Z85 = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#")
_FIELDS = ("name", "server_key", "public_key", "secret_key")


class CredentialError(ValueError):
    """A credential that can't be used: its file is open to others, or it does not hold what it must."""


class Credential(NamedTuple):
    """What one peer needs to connect: its `name`, the hub's public key, its own pair; keys as Z85 text.

    Its text form does not show the secret key.
    """

    name: str
    server_key: str
    public_key: str
    secret_key: str

    def __repr__(self) -> str:
        return f"Credential(name={self.name!r}, public_key={self.public_key!r})"

    def to_json(self) -> bytes:
        """One line of JSON text."""
        return json.dumps(self._asdict()).encode() + b"\n"


class RunKeys:
    """The hub's pair and the pairs of its peers; make it with `generate`.

    Attributes: `public` and `secret` (the hub's pair, Z85 bytes), `allowed` (name by public key, Z85 bytes): the allow-list.
    """

    def __init__(self, public: bytes, secret: bytes, peers: dict[str, tuple[bytes, bytes | None]]) -> None:
        self.public = public
        self.secret = secret
        self._peers = peers
        self.allowed = {key: name for name, (key, _secret) in peers.items()}

    def __repr__(self) -> str:
        return f"RunKeys(public={self.public.decode()!r}, peers={sorted(self._peers)})"

    @classmethod
    def generate(cls, names: Iterable[str]) -> RunKeys:
        """New pairs for the hub and for each of `names` (workers, hosts, foreign nodes).

        Raises:
            ValueError: a name twice, or one that is empty or has more than 255 bytes.
        """
        peers: dict[str, tuple[bytes, bytes | None]] = {}
        for name in names:
            if name in peers or not 0 < len(name.encode()) <= NAME_MAX_BYTES:
                raise ValueError(f"a peer's name must be new and of 1 to {NAME_MAX_BYTES} bytes, not {name!r}")
            peers[name] = zmq.curve_keypair()
        return cls(*zmq.curve_keypair(), peers)

    def credential(self, name: str) -> bytes:
        """The credential of a peer as JSON text, for its file or stdin.

        Raises:
            KeyError: nobody of that name was given keys, or this is the hub's copy, which has no secrets of others.
        """
        public, secret = self._peers[name]
        if secret is None:
            raise KeyError(name)
        return Credential(name, self.public.decode(), public.decode(), secret.decode()).to_json()

    def for_hub(self) -> dict[str, object]:
        """What the hub's process needs, as plain data: its own pair, and the public keys by name."""
        return {
            "public": self.public,
            "secret": self.secret,
            "peers": {name: key for name, (key, _secret) in self._peers.items()},
        }

    @classmethod
    def from_order(cls, data: dict[str, object]) -> RunKeys:
        """The inverse of `for_hub`: the result can give no credentials."""
        public, secret, peers = (data[name] for name in ("public", "secret", "peers"))
        assert isinstance(public, bytes) and isinstance(secret, bytes) and isinstance(peers, dict)
        return cls(public, secret, {name: (key, None) for name, key in peers.items()})


def write_credential(path: Path, text: bytes) -> None:
    """Write a credential to a new file of mode 0600; FileExistsError when there is one already."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(text)


def load_credential(source: str | Path) -> Credential:
    """Read a credential from a file, or from stdin to its end when `source` is ``-``.

    Raises:
        CredentialError: the file can't be read, is readable or writable by group or others, or holds no credential. The text
            never shows the content.
    """
    if os.fspath(source) == "-":
        return parse_credential(sys.stdin.buffer.read(CREDENTIAL_MAX_BYTES + 1), "stdin")
    try:
        with open(source, "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise CredentialError(
                    f"credential file {source} must be open to its owner alone (mode 0600 or 0400), not {mode:#05o}: "
                    f"run `chmod 600 {source}`; if others may have read it, start a new run, which makes new keys"
                )
            text = file.read(CREDENTIAL_MAX_BYTES + 1)
    except OSError as error:
        raise CredentialError(f"credential file {source} must be readable: {error.strerror}") from None
    return parse_credential(text, str(source))


def parse_credential(text: bytes, where: str) -> Credential:
    """A credential from its JSON text; CredentialError names `where` it came from and the field that is wrong."""
    if len(text) > CREDENTIAL_MAX_BYTES:
        raise CredentialError(f"credential in {where} must have at most {CREDENTIAL_MAX_BYTES} bytes")
    try:
        found = json.loads(text)
    except ValueError:
        raise CredentialError(f"credential in {where} must be JSON text") from None
    if not isinstance(found, dict) or sorted(found) != sorted(_FIELDS):
        raise CredentialError(f"credential in {where} must be an object with {', '.join(_FIELDS)}")
    for field in _FIELDS:
        value = found[field]
        if not isinstance(value, str) or not value or (field != "name" and not _is_key(value)):
            wanted = "text" if field == "name" else f"a key of {KEY_SIZE} Z85 characters"
            raise CredentialError(f"{field} of the credential in {where} must be {wanted}")
    credential = Credential(*(found[field] for field in _FIELDS))
    if zmq.curve_public(credential.secret_key.encode()).decode() != credential.public_key:
        raise CredentialError(f"public_key of the credential in {where} must belong to its secret_key")
    return credential


def _is_key(text: str) -> bool:
    return len(text) == KEY_SIZE and _Z85.issuperset(text)
