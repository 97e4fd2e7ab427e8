"""``uniscale test``: whether the installed payloads work, by starting them.

First the command that the backend's manifest names (``launch.test`` of the payload): it imports or
starts the engine and ends. Then, for what serves, the demo model is served and asked a question
whose answer is known.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from uniscale_build.errors import LaunchError

from uniscale.engines import engines
from uniscale.engines.engines import Place
from uniscale.models import models
from uniscale.wheels import payloads
from uniscale.wheels.record import Payload

_START = 300.0  # seconds; importing a large engine from a cold disk takes minutes


@dataclass(frozen=True)
class Trial:
    """One thing that was tried: ``state`` is passed, failed or skipped."""

    payload: str
    name: str  # starts, answers
    state: str
    what: str
    seconds: float


def smoke(
    backends: Sequence[str], *, device: str | None, quick: bool, timeout: float, as_json: bool
) -> int:
    """Try each payload, tell each trial as it ends, and give 13 when one failed.

    ``timeout`` (seconds) is for an engine to load the demo model.
    """
    found = _asked(backends, device)
    trials: list[Trial] = []
    for payload in found:
        for trial in _trials(payload, quick, timeout):
            trials.append(trial)
            if not as_json:
                mark = {"passed": "ok", "failed": "!!", "skipped": "--"}[trial.state]
                told = f"{mark} {trial.payload} {trial.name}: {trial.what}"
                print(f"{told} ({trial.seconds:.1f} s)" if trial.seconds else told, flush=True)
    failed = any(trial.state == "failed" for trial in trials)
    if as_json:
        told_all = {"passed": not failed, "trials": [asdict(trial) for trial in trials]}
        print(json.dumps(told_all, indent=2, ensure_ascii=False))
    return LaunchError.exit_code if failed else 0


def _asked(backends: Sequence[str], device: str | None) -> list[Payload]:
    if backends:
        every = [one for word in backends for one in payloads.named(word, device)]
        reached = {one.prefix for one in payloads.find().payloads}
        return [one for one in every if one.prefix in reached]  # hidden ones cannot be started
    found = payloads.find()
    if found.broken:
        raise found.broken[0].error
    if not found.payloads:
        raise LaunchError("no payload is installed", where=sys.prefix, hint=payloads.HOW_TO_GET,
                          slug="no-payload")  # fmt: skip
    return list(found.payloads)


def _trials(payload: Payload, quick: bool, timeout: float) -> Iterator[Trial]:
    started = _starts(payload)
    yield started
    if quick:
        return
    if started.state == "failed":
        yield Trial(payload.title, "answers", "skipped", "it does not start", 0.0)
    else:
        yield _answers(payload, timeout)


def _starts(payload: Payload) -> Trial:
    """Run the payload's own test, as its engine would be run."""
    launch = payload.launch.get("test")
    if launch is None:
        return Trial(payload.title, "starts", "skipped", "its record names no test", 0.0)
    place = Place(payload.root, payload.python or sys.executable, payload.device_environment)
    argv, added = engines.program(launch, place, os.environ)
    began = time.monotonic()
    try:
        ran = subprocess.run(
            argv, env={**os.environ, **added}, stdin=subprocess.DEVNULL, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_START, check=False,
            errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Trial(payload.title, "starts", "failed", f"no end in {_START:.0f} s", _START)
    except OSError as error:
        what = f"{argv[0]} cannot be run: {error.strerror}"
        return Trial(payload.title, "starts", "failed", what, 0.0)
    seconds = time.monotonic() - began
    lines = [line.strip() for line in ran.stdout.splitlines() if line.strip()]
    if ran.returncode != 0:
        what = lines[-1] if lines else "it said nothing"  # Python's last line is the reason
        return Trial(payload.title, "starts", "failed", f"exit code {ran.returncode}: {what}",
                     seconds)  # fmt: skip
    return Trial(payload.title, "starts", "passed", lines[-1] if lines else "yes", seconds)


def _answers(payload: Payload, timeout: float) -> Trial:
    """Serve the demo model and ask it what it has learnt."""
    serve = payload.launch.get("serve")
    demo = models.resolve("demo")
    if serve is None or "infer" not in payload.tasks:
        return Trial(payload.title, "answers", "skipped", "it serves nothing", 0.0)
    if not set(serve.formats) & set(demo.formats):
        return Trial(payload.title, "answers", "skipped", "it does not take the demo model", 0.0)
    question, answer = _known()
    words = [sys.executable, "-m", "uniscale", "infer", "demo", question, "--json",
             "--backend", payload.backend, "--device", payload.device,
             "--start-timeout", str(timeout)]  # fmt: skip
    began = time.monotonic()
    ran = subprocess.run(words, capture_output=True, text=True, check=False,
                         stdin=subprocess.DEVNULL)  # fmt: skip
    seconds = time.monotonic() - began
    try:
        told = json.loads(ran.stdout)
    except ValueError:
        told = {"errors": [{"what": ran.stderr.strip()[-300:] or f"exit code {ran.returncode}"}]}
    if "errors" in told:
        what = "; ".join(str(one["what"]) for one in told["errors"])
        return Trial(payload.title, "answers", "failed", what, seconds)
    if str(told["text"]).strip() != answer:
        what = f"{question} gave {told['text']!r}, not {answer!r}"
        return Trial(payload.title, "answers", "failed", what, seconds)
    return Trial(payload.title, "answers", "passed", f"{question} {answer}", seconds)


def _known() -> tuple[str, str]:
    """A question that the demo model was trained on, and its answer."""
    path = Path(models.__file__).with_name("demo") / "answers.jsonl"
    first = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    asked, answered = first["messages"]
    return asked["content"], answered["content"]
