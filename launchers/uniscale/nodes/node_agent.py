"""Runs on every machine of a job, sent there as text: standard library only.

It reads JSON lines from its standard input and answers with JSON lines: what it is to run, then
``go``. It ends what it started when it is told to, when its input closes (the launcher or the
connection has gone), or when nothing was heard for a minute. Nothing passes through a shell.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

Task = dict[str, Any]

GRACE = 10.0  # seconds between SIGTERM and SIGKILL
SILENCE = 60.0  # seconds without a word from the launcher, which speaks every few
MARK = "UNISCALE_NODE"  # variable whose value, a long random word, marks all that a job started
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_SIOCGIFADDR = 0x8915  # linux/sockios.h
ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
IGNORED = (*ENDING, signal.SIGPIPE, signal.SIGXFSZ)  # by us, or by Python itself


def tell(**facts: object) -> None:
    """One line to the launcher; that it has gone is noticed by its closed end."""
    with suppress(OSError):
        os.write(1, (json.dumps(facts) + "\n").encode())


def started(pid: int) -> int | None:
    """When ``pid`` started, in clock ticks since boot; None when it is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            fields = stream.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


class Words:
    """JSON lines from the launcher."""

    def __init__(self) -> None:
        self.rest = b""
        self.open = True
        self.heard = time.monotonic()

    def next(self, patience: float) -> Task | None:
        """The next line, None when none came within ``patience`` seconds or the input closed."""
        while b"\n" not in self.rest and self.open:
            readable, _, _ = select.select([0], [], [], patience)
            if not readable:
                return None
            data = os.read(0, 65536)
            self.open = bool(data)
            self.rest += data
            self.heard = time.monotonic()
        line, newline, rest = self.rest.partition(b"\n")
        if not newline:
            return None
        self.rest = rest
        said: Task = json.loads(line.decode() or "{}")
        return said


def towards(head: str) -> str | None:
    """Our address on the way to ``head``; None when there is no way."""
    try:
        family, _, _, _, place = socket.getaddrinfo(head, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(place)  # sends nothing
            return str(probe.getsockname()[0])
    except OSError:
        return None


def interface(address: str) -> str | None:
    """The network interface that bears ``address`` (IPv4, or IPv6 by /proc); None when none."""
    for _, name in socket.if_nameindex():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                asked = struct.pack("256s", name.encode()[:15])
                told = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, asked)
            except OSError:
                continue
        if socket.inet_ntoa(told[20:24]) == address:
            return name
    try:
        wanted = socket.inet_pton(socket.AF_INET6, address.partition("%")[0]).hex()
        with open("/proc/net/if_inet6", encoding="ascii") as lines:
            return next((line.split()[5] for line in lines if line.startswith(wanted)), None)
    except OSError:
        return None


def problems(task: Task, environment: Mapping[str, str]) -> list[str]:
    """Why the task cannot start here."""
    found = []
    if shutil.which(task["argv"][0], path=environment.get("PATH", os.defpath)) is None:
        found.append(f"there is no program {task['argv'][0]}")
    if task.get("folder") and not os.path.isdir(task["folder"]):
        found.append(f"there is no folder {task['folder']}")
    if task["local"] and not task["address"]:
        found.append(f"there is no way to {task['head']}")
    return found


def prepared(task: Task) -> dict[str, str]:
    """The environment of the task here; its address and interface are filled in."""
    environment = dict(os.environ)
    environment.update(task["environment"])
    address = towards(task["head"]) if task["local"] else None
    task["address"] = address
    known = {"address": address, "interface": interface(address) if address else None}
    environment.update({key: known[what] for key, what in task["local"].items() if known[what]})
    environment[MARK] = task["mark"]
    return environment


def start(task: Task, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """The task's process, leader of a group of its own; it dies when we do."""
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def in_child() -> None:
        os.setpgid(0, 0)
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        for number in IGNORED:
            signal.signal(number, signal.SIG_DFL)  # an ignored signal stays so across exec

    return subprocess.Popen(
        task["argv"],
        env=environment,
        cwd=task.get("folder") or None,
        stdin=subprocess.DEVNULL,
        stdout=2,  # our standard error is the log; our standard output is for the launcher
        stderr=2,
        preexec_fn=in_child,
    )


def sweep(mark: str) -> int:
    """Kill every process that bears ``mark``, however it left its group; how many there were."""
    wanted = f"{MARK}={mark}".encode()
    hit: set[int] = set()
    for _ in range(50):
        alive = [pid for pid in marked(wanted) if started(pid) is not None]
        if not alive:
            break
        for pid in alive:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                hit.add(pid)
        time.sleep(0.02)
    return len(hit)


def marked(wanted: bytes) -> Iterator[int]:
    """The pids whose environment holds ``wanted``."""
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as stream:
                if wanted in stream.read().split(b"\0"):
                    yield int(name)
        except OSError:
            continue


def end(child: subprocess.Popen[bytes], mark: str) -> int:
    """End the task: its group by SIGTERM, then SIGKILL, then whatever left the group; its code."""
    deadline = time.monotonic() + GRACE
    if over(child) is None:
        os.killpg(child.pid, signal.SIGTERM)
    while over(child) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    with suppress(ProcessLookupError):
        # The leader is not reaped yet: the group's number can be nobody else's.
        os.killpg(child.pid, signal.SIGKILL)
    code = child.wait()
    sweep(mark)
    return code


def over(child: subprocess.Popen[bytes]) -> int | None:
    """Its exit code (negative: the signal) once it has ended; it is not reaped."""
    state = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if state is None:
        return None
    return state.si_status if state.si_code == os.CLD_EXITED else -state.si_status


def answers(url: str) -> bool:
    """True when ``url`` answers with a success."""
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=1) as answer:
            return bool(200 <= answer.status < 300)
    except (OSError, ValueError):
        return False


def watch(child: subprocess.Popen[bytes], task: Task, words: Words) -> bool:
    """Until the task ends, or the launcher has gone or asks for its end; True for the latter."""
    probe = task.get("probe")
    due = 0.0
    while over(child) is None:
        word = words.next(0.1)
        if (word and word.get("stop")) or not words.open:
            return True
        if time.monotonic() - words.heard > SILENCE:
            return True
        if probe and time.monotonic() >= due:
            due = time.monotonic() + 0.5
            if answers(probe):
                probe = None
                tell(ready=True)
    return False


def main() -> None:
    """Serve one launcher, once."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)  # our end is that of our input
    tell(hello=os.getpid(), python=sys.version.split()[0])
    words = Words()
    task = words.next(SILENCE)
    if not task:
        return
    if "sweep" in task:
        tell(swept=sweep(task["sweep"]))
        return
    environment = prepared(task)
    found = problems(task, environment)
    tell(refused=found) if found else tell(fit=task["address"] or "")
    # Until `go` come only signs of life, while other machines are still being reached.
    word: Task | None = {}
    while word is not None and not word.get("go") and not word.get("stop"):
        word = words.next(SILENCE)
    if found or not word or word.get("stop"):
        return
    try:
        child = start(task, environment)
    except (OSError, subprocess.SubprocessError) as error:
        tell(refused=[str(error)])
        return
    tell(started=child.pid, at=started(child.pid) or 0)
    asked = watch(child, task, words)
    tell(ended=end(child, task["mark"]), asked=asked)


main()
