"""`uniscale.ports`: which ports are free, on real sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from uniscale import ports
from uniscale_build.errors import LaunchError


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def refused(host: str, port: str) -> LaunchError:
    with pytest.raises(LaunchError) as caught:
        ports.check_free(host, port)
    return caught.value


def test_a_free_port_is_free() -> None:
    port = ports.free_port()
    for host in ("127.0.0.1", "localhost", "0.0.0.0"):
        ports.check_free(host, str(port))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_taken_port_and_a_free_one(taken: int, host: str) -> None:
    error = refused(host, str(taken))
    assert error.slug == "port-taken"
    assert error.what == f"port {taken} is taken"
    hint = str(error.hint)
    ports.check_free(host, hint.rpartition(" ")[2])


def test_a_server_that_shares_its_port_still_has_it() -> None:
    # llama-server listens with SO_REUSEPORT: a second one would silently get half the requests.
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as server:
        assert refused("127.0.0.1", str(server.getsockname()[1])).slug == "port-taken"


@pytest.mark.parametrize("port", ["", "x", "-1", "65536", "80 80", "１２３", "1e3"])
def test_no_port(port: str) -> None:
    assert refused("127.0.0.1", port).slug == "bad-port"


def test_no_host() -> None:
    assert refused("no-such-host.invalid", "8080").slug == "bad-host"
    assert refused("x" * 300, "8080").slug == "bad-host"
    assert refused("192.0.2.1", "8080").slug == "bad-host"  # documentation's own, RFC 5737


def test_unix_sockets_are_the_engines_business() -> None:
    ports.check_free("/tmp/engine.sock", "0")


def test_addresses() -> None:
    assert ports.reachable("0.0.0.0") == "127.0.0.1"
    assert ports.reachable("::") == "::1"
    assert ports.reachable("10.0.0.1") == "10.0.0.1"
    assert ports.url("::1", "80") == "http://[::1]:80"
    assert ports.url("h", "80") == "http://h:80"
