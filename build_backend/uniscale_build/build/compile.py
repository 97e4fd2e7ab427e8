"""Runs an upstream build: its output goes to a log, its counts to the reporter, its end to us."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from uniscale_build.ending import interrupted_by_signals
from uniscale_build.errors import CompileError, ToolchainError
from uniscale_build.progress import Reporter

_COUNT = re.compile(rb"^\[(\d+)/(\d+)\] ")
_FIRST_ERROR = re.compile(
    rb"(?:: (?:fatal )?error[: ]|^CMake Error|^FAILED: |undefined reference|^ninja: error|^error:)"
)
# In what CMake quotes of a compiler that failed its test, the compiler's own words.
_QUOTED = re.compile(rb"^ {4}(?:\w+ (?:fatal|error) *:|.*: (?:fatal )?error: )")
# What compilers, linkers and Ninja themselves say when memory ends; a line of source that a warning
# quotes ("  12 | …") is not theirs.
_NO_MEMORY = re.compile(
    rb"^(?!\s*\d*\s*\|).*?(?:"
    rb"Killed signal terminated program|Killed \(program|due to signal 9|signal 9 \[Killed\]"
    rb"|unable to execute command: Killed|^(?:\S+: )*(?:line )?(?:\d+:? )*\s*\d* ?Killed\b"
    rb"|: out of memory allocating|LLVM ERROR: out of memory|std::bad_alloc"
    rb"|: Cannot allocate memory|: memory exhausted|: Memory allocation failure"
    rb"|^memory allocation of \d+ bytes failed|^FAILED: \[code=137\])",
    re.MULTILINE,
)


class OutOfMemory(CompileError):
    """The kernel or the compiler gave up for want of memory."""

    slug = "out-of-memory"


def fewer_jobs(jobs: int) -> str:
    """What is told when a build that ran out of memory goes on with ``jobs``."""
    return f"memory ran out; going on with {jobs} compile job{'s' if jobs > 1 else ''}"


def run_build(
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str],
    cwd: Path,
    reporter: Reporter,
    keep_open: Sequence[int] = (),
) -> None:
    """Run ``command`` to its end; `CompileError` names the first error and the log.

    ``keep_open`` are descriptors of locks that live on in the children: should we be killed, the
    next run waits for their end. Whatever interrupts us takes the whole process group along.
    """
    # Unbuffered: whoever follows the log sees each line, and a kill loses none.
    with interrupted_by_signals(), log.open("wb", buffering=0) as out:
        process = subprocess.Popen(
            list(command), cwd=cwd, env={**env, "NINJA_STATUS": "[%f/%t] "},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True, pass_fds=tuple(keep_open),
        )  # fmt: skip
        try:
            _follow(process, out, reporter)
            code = process.wait()
        except BaseException:
            _stop(process)
            raise
    if code != 0:
        raise _failure(log, code)


def _follow(process: subprocess.Popen[bytes], out: object, reporter: Reporter) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            out.write(line)  # type: ignore[attr-defined]
            if counted := _COUNT.match(line):
                reporter.advance(int(counted[1]), int(counted[2]), "steps")
            elif line.startswith(b"uniscale-step: "):
                reporter.stage(line.split(b": ", 1)[1].strip().decode())


def _stop(process: subprocess.Popen[bytes]) -> None:
    for signum, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, signum)
            process.wait(patience)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _failure(log: Path, code: int) -> CompileError | ToolchainError:
    text = log.read_bytes()
    missing = re.search(rb"^uniscale-missing: (\w+)", text, re.MULTILINE)
    if missing:
        name = missing[1].decode()
        package = {"ninja": "ninja-build"}.get(name, name)
        return ToolchainError(
            f"there is no {name} that is new enough",
            hint=f"pip install {name}, or apt-get install {package}",
            slug=f"no-{name}",
        )
    lines = text.splitlines()
    first = next((n for n, line in enumerate(lines) if _FIRST_ERROR.search(line)), None)
    shown = lines[first : first + 4] if first is not None else lines[-4:]
    if first is not None and lines[first].startswith(b"CMake Error"):
        shown += [line for line in lines[first + 4 :] if _QUOTED.match(line)][:1]
    words = b"\n".join(shown).decode("utf-8", "replace")
    step = re.findall(rb"^uniscale-step: (\w+)", text, re.MULTILINE)
    where = step[-1].decode() if step else "build"
    if code < 0 or _NO_MEMORY.search(text):
        return OutOfMemory(
            f"the {where} step was killed, most likely for want of memory",
            where=str(log),
            hint="use fewer jobs (jobs=1), or a machine with more memory",
        )
    if b"No space left on device" in text:
        return CompileError(
            "the disk is full", where=str(log), slug="disk-full",
            hint="free some space, or put the work folder elsewhere (build-dir=…); "
            "what was compiled is kept",
        )  # fmt: skip
    return CompileError(
        f"the {where} step failed; the first error is:\n{words}",
        where=str(log),
        hint="the log has everything; run the same command again to go on from there",
    )
