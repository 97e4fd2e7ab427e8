"""Reads a hostfile: one machine on each line, plain or as FlagScale and MPI write it.

``10.0.0.1 slots=8 type=A800``, ``node-2``, ``user@node-3 port=2222``; ``#`` begins a comment. The
first machine is the head: rank 0, rendezvous, and the address that clients ask.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from uniscale_build.errors import SettingsError, UniscaleError, did_you_mean, raise_all

from uniscale import ports

_MOST = 4096  # machines; a larger file is no hostfile
_LARGEST = 1 << 20  # bytes
_KEYS = ("slots", "type", "port", "user", "python")
_ALIASES = {"slot": "slots", "max_slots": "slots", "max-slots": "slots"}
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,63}")
_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


@dataclass(frozen=True)
class Host:
    """One machine of a job."""

    name: str  # name or address, as ssh and the other machines reach it
    slots: int | None = None  # processes (chips) there; None: not said
    type: str | None = None  # what kind of chip, for settings that are of one kind
    user: str | None = None
    port: int | None = None  # of its ssh server
    python: str | None = None  # its interpreter, where it is another one than ours

    def at(self, port: int) -> str:
        """``host:port`` of a service there; an IPv6 address stands in brackets."""
        return f"[{self.name}]:{port}" if ":" in self.name else f"{self.name}:{port}"


def read(path: Path) -> tuple[Host, ...]:
    """The machines in ``path``, in its order; raises `SettingsError` for every bad line at once."""
    try:
        if path.stat().st_size > _LARGEST:
            raise _bad(str(path), f"it is larger than {_LARGEST >> 20} MiB")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise _bad(str(path), f"it cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _bad(str(path), f"it is not UTF-8 text (byte {error.start})") from error
    return parse(text, str(path))


def parse(text: str, name: str) -> tuple[Host, ...]:
    """The machines in a hostfile's ``text``; ``name`` stands in errors. A pure function."""
    errors: list[UniscaleError] = []
    hosts: list[Host] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        where = f"{name}:{number}"
        host = _host(words, where, errors)
        if host is None:
            continue
        if host.name in lines:
            what = f"{host.name} stands in lines {lines[host.name]} and {number}"
            errors.append(_bad(where, what, "one line for each machine; slots=N for its chips"))
        lines.setdefault(host.name, number)
        hosts.append(host)
    if not hosts and not errors:
        errors.append(_bad(name, "it names no machine", "a line for each: 10.0.0.1 slots=8"))
    if len(hosts) > _MOST:
        errors.append(_bad(name, f"it names {len(hosts)} machines, more than {_MOST}"))
    raise_all(errors)
    return tuple(hosts)


def _bad(where: str, what: str, hint: str | None = None) -> SettingsError:
    return SettingsError(f"the hostfile cannot be used: {what}", where=where, hint=hint,
                         slug="bad-hostfile")  # fmt: skip


def _host(words: Sequence[str], where: str, errors: list[UniscaleError]) -> Host | None:
    user, at, name = words[0].rpartition("@")
    told: dict[str, str] = {"user": user} if at else {}
    for word in words[1:]:
        key, equals, value = word.partition("=")
        key = _ALIASES.get(key, key)
        if not equals or key not in _KEYS:
            errors.append(_bad(where, f"unknown word {word!r}", did_you_mean(key, _KEYS)))
        elif key in told:
            errors.append(_bad(where, f'"{key}" is given twice'))
        else:
            told[key] = value
    name = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    if not _is_host(name):
        hint = "a name or an address; the ssh port is port=2222" if ":" in name else None
        errors.append(_bad(where, f"{words[0]!r} names no machine", hint))
        return None
    if "user" in told and not _USER.fullmatch(told["user"]):
        errors.append(_bad(where, f"{told['user']!r} is no user's name"))
    if "type" in told and not _TYPE.fullmatch(told["type"]):
        errors.append(_bad(where, f"{told['type']!r} is no kind of chip"))
    if "python" in told and not told["python"].startswith("/"):
        errors.append(_bad(where, f"python={told['python']} is no absolute path"))
    return Host(
        name=name,
        slots=_number(told, "slots", 1024, where, errors),
        type=told.get("type"),
        user=told.get("user"),
        port=_number(told, "port", ports.LARGEST, where, errors),
        python=told.get("python"),
    )


def _is_host(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        # Four numbers with dots that are no address are a slip, not a name.
        digits = name.replace(".", "").isdigit()
        return not digits and _NAME.fullmatch(name) is not None


def _number(
    told: dict[str, str], key: str, most: int, where: str, errors: list[UniscaleError]
) -> int | None:
    text = told.get(key)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
        errors.append(_bad(where, f"{key}={text} is no whole number from 1 to {most}"))
        return None
    return int(text)
