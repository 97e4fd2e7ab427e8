"""TCP ports: is one free, and which one is."""

from __future__ import annotations

import errno
import socket

from uniscale_build.errors import LaunchError

LOOPBACK = "127.0.0.1"
LARGEST = 65535
RANGE = f"from 1 to {LARGEST}"
EVERYWHERE = {"0.0.0.0": LOOPBACK, "::": "::1"}


def number(text: str) -> int | None:
    """The port that ``text`` says in plain digits; None when it says none."""
    plain = text.isascii() and text.isdigit() and len(text) <= len(str(LARGEST))
    return int(text) if plain and 1 <= int(text) <= LARGEST else None


def free_port(host: str = LOOPBACK) -> int:
    """A port of ``host`` that nothing uses at this moment."""
    with socket.socket(_family(host), socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def free_ports(number: int, host: str = LOOPBACK) -> list[int]:
    """That many different ports of ``host`` that nothing uses at this moment."""
    probes = [socket.socket(_family(host), socket.SOCK_STREAM) for _ in range(number)]
    try:
        for probe in probes:
            probe.bind((host, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def accepts(host: str, port: int, timeout: float) -> bool:
    """True when something accepts a connection there within ``timeout`` seconds."""
    try:
        socket.create_connection((host, port), timeout).close()
    except OSError:
        return False
    return True


def check_free(host: str, port: str) -> None:
    """Raise `LaunchError` unless a server could listen on ``host`` (address or name) and ``port``.

    Port 0 (any) and hosts that are the path of a Unix socket are the engine's own business.
    """
    if "/" in host:
        return
    if port != "0" and number(port) is None:
        raise LaunchError(f"{port!r} is not a port", hint=f"a number {RANGE}", slug="bad-port")
    # Bytes go as they are; text goes through a codec that takes longer to import than to bind.
    name = host.encode() if host.isascii() else host
    try:
        addresses = socket.getaddrinfo(name, int(port), type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise LaunchError(
            f"the host {host!r} is not known: {error}",
            hint="127.0.0.1 is this machine alone, 0.0.0.0 every network that it is in",
            slug="bad-host",
        ) from error
    for family, kind, _, _, address in addresses:
        with socket.socket(family, kind) as probe:
            # As servers do: a port in TIME_WAIT is free, one that somebody listens on is not.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                raise _refused(host, port, error) from error


def reachable(host: str) -> str:
    """The address by which a client on this machine reaches a server that listens on ``host``."""
    return EVERYWHERE.get(host, host)


def url(host: str, port: str) -> str:
    """The server's address for people: ``http://[::1]:8080``."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _refused(host: str, port: str, error: OSError) -> LaunchError:
    if error.errno == errno.EADDRINUSE:
        return LaunchError(
            f"port {port} is taken",
            where=f"{host}:{port}",
            hint=f"take a free one: --port {_free_after(int(port))}",
            slug="port-taken",
        )
    if error.errno == errno.EACCES:
        return LaunchError(
            f"port {port} needs rights that you do not have",
            where=f"{host}:{port}",
            hint="ports from 1024 on need none",
            slug="port-forbidden",
        )
    return LaunchError(
        f"nothing can listen there: {error.strerror}",
        where=f"{host}:{port}",
        hint="the host must be an address of this machine",
        slug="bad-host",
    )


def _free_after(port: int) -> int:
    for candidate in range(port + 1, min(port + 50, LARGEST + 1)):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if probe.connect_ex((LOOPBACK, candidate)) == 0:
                continue
        return candidate
    return free_port()
