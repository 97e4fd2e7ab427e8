"""``uniscale pull``: a container image by docker or podman, a model by its hub's own library.

Each failure is an error with an exit code: what the engine or the hub says is its reason.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import deque
from dataclasses import dataclass

from uniscale_build.errors import LaunchError, SettingsError, SourceError, did_you_mean

ENGINES = ("docker", "podman", "nerdctl")
HUBS = {"huggingface": "huggingface_hub", "modelscope": "modelscope"}
# The variable that names another address of each.
_ADDRESSES = {"huggingface": "HF_ENDPOINT", "modelscope": "MODELSCOPE_DOMAIN"}
_IMAGE = re.compile(r"[a-z0-9][\w.-]*(?::\d+)?(?:/[\w.-]+)*(?::[\w.-]+)?(?:@sha256:[0-9a-f]{64})?")
_UNREACHED = frozenset(
    ("LocalEntryNotFoundError", "ConnectionError", "ConnectError", "OfflineModeIsEnabled",
     "Timeout", "TimeoutException")
)  # fmt: skip
_MODEL = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, kw_only=True)
class PullRequest:
    """What ``uniscale pull`` is asked for."""

    what: str
    image: bool = False
    model: bool = False
    source: str | None = None  # one of HUBS
    revision: str | None = None
    to: str | None = None
    as_json: bool = False


def pull(request: PullRequest) -> int:
    """Fetch it; `SettingsError`, `LaunchError` (nothing to fetch with) or `SourceError`."""
    told = _image(request) if _is_image(request) else _model(request)
    if request.as_json:
        print(json.dumps(told, indent=2))
    else:
        print(" ".join(f"{told[key]}" for key in ("kind", "what", "where")))
    return 0


def _is_image(request: PullRequest) -> bool:
    """True for an image: it has a tag or digest, or begins with a registry's host name."""
    word = request.what
    if request.image and request.model:
        raise SettingsError("it cannot be both", where="--image --model", slug="usage")
    if "://" in word:
        raise SettingsError(
            f"{word!r} is an address", where=word, slug="bad-name",
            hint="an image is host/name:tag, a model owner/name; pull neither by https://",
        )  # fmt: skip
    options = {"--from": request.source, "--revision": request.revision, "--to": request.to}
    given = [name for name, value in options.items() if value is not None]
    hub = bool(request.model or given)
    if request.image and given:
        raise SettingsError(
            f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} for models, and this is "
            "an image", where="--image", slug="usage",
            hint="an image's version is in its name: host/name:tag",
        )  # fmt: skip
    if request.image or (not hub and _looks_like_an_image(word)):
        if _IMAGE.fullmatch(word) is None:
            raise SettingsError(f"{word!r} is no image's name", where=word, slug="bad-name",
                                hint="host/name:tag, in lower case")  # fmt: skip
        return True
    if _MODEL.fullmatch(word) is None:
        raise SettingsError(
            f"{word!r} is neither an image's name nor a model's", where=word, slug="bad-name",
            hint="a model is owner/name, an image host/name:tag; --image or --model says which",
        )  # fmt: skip
    return False


def _looks_like_an_image(word: str) -> bool:
    first, slash, rest = word.partition("/")
    host = bool(slash) and ("." in first or ":" in first or first == "localhost")
    return host or ":" in word or "@" in word or "/" in rest


def _engine() -> str | None:
    """The first engine that is there; of several, the first that works: a client of docker's may
    be there without its daemon."""
    found = [path for name in ENGINES if (path := shutil.which(name))]
    if len(found) < 2:
        return found[0] if found else None
    return next((path for path in found if _works(path)), found[0])


def _works(path: str) -> bool:
    try:
        ran = subprocess.run([path, "version"], capture_output=True, check=False, timeout=20,
                             stdin=subprocess.DEVNULL)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ran.returncode == 0


def _image(request: PullRequest) -> dict[str, str]:
    path = _engine()
    if path is None:
        raise LaunchError(
            "there is no container engine to pull with",
            where=request.what,
            hint=f"install one of {', '.join(ENGINES)}",
            slug="no-engine",
        )
    tail: deque[str] = deque(maxlen=3)
    # What the engine says goes to standard error: standard output is the answer alone.
    process = subprocess.Popen([path, "pull", request.what], stdout=subprocess.PIPE, text=True,
                               stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                               errors="replace")  # fmt: skip
    assert process.stdout is not None
    try:
        for line in process.stdout:
            print(line.rstrip(), file=sys.stderr, flush=True)
            if line.strip():
                tail.append(line.strip())
        code = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if code != 0:
        said = tail[-1] if tail else f"exit code {code}"
        raise SourceError(f"the image was not pulled: {said}", where=request.what,
                          hint=f"try it alone: {path} pull {request.what}",
                          slug="pull-failed")  # fmt: skip
    words = [path, "image", "inspect", "--format", "{{.Id}}", request.what]
    inspected = subprocess.run(words, capture_output=True, text=True, check=False)
    return {"kind": "image", "what": request.what, "where": inspected.stdout.strip(), "by": path}


def _model(request: PullRequest) -> dict[str, str]:
    from importlib.util import find_spec

    if request.source is not None and request.source not in HUBS:
        hint = did_you_mean(request.source, HUBS)
        raise SettingsError(
            f'there is no hub "{request.source}"', where="--from", hint=hint, slug="unknown-hub"
        )
    wanted = [request.source] if request.source else list(HUBS)
    hub = next((name for name in wanted if find_spec(HUBS[name]) is not None), None)
    if hub is None:
        libraries = " or ".join(HUBS[name] for name in wanted)
        raise LaunchError(
            f"{libraries} is not installed, which fetches models",
            where=request.what,
            hint=f"{sys.executable} -m pip install {HUBS[wanted[0]]}",
            slug="no-hub",
        )
    try:
        where = _fetched(hub, request)
    except (KeyboardInterrupt, SystemExit):
        raise
    except Exception as error:
        raise _refused(hub, request, error) from error
    return {"kind": "model", "what": request.what, "where": where, "by": hub}


def _fetched(hub: str, request: PullRequest) -> str:
    import contextlib

    more = {"revision": request.revision, "local_dir": request.to}
    given = {key: value for key, value in more.items() if value is not None}
    # Some hubs greet on standard output.
    with contextlib.redirect_stdout(sys.stderr):
        if hub == "huggingface":
            from huggingface_hub import snapshot_download
        else:
            from modelscope import snapshot_download
        return str(snapshot_download(request.what, **given))


def _refused(hub: str, request: PullRequest, error: Exception) -> SourceError:
    """The hub's exception as a sentence; its libraries share no classes, but they share names."""
    kinds = {cls.__name__ for cls in type(error).__mro__}
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    reason, hint, slug = said or type(error).__name__, "", "pull-failed"
    if "GatedRepoError" in kinds:
        reason, slug = "its owner asks for consent to its terms", "gated"
        hint = "accept them on the model's page, then: hf auth login"
    elif kinds & {"RepositoryNotFoundError", "NotExistError"}:
        reason, slug = "the hub has no such model, or it is private", "no-model"
        hint = "is owner/name right? for a private one: hf auth login"
    elif "RevisionNotFoundError" in kinds:
        reason, slug = f"it has no revision {request.revision}", "no-model"
    elif kinds & _UNREACHED:
        reason, slug = "the hub cannot be reached, and it is not in the cache", "no-network"
        hint = f"what has come so far is kept; {_ADDRESSES[hub]} names another address of the hub"
    elif isinstance(error, OSError) and error.strerror:
        reason = error.strerror
    return SourceError(f"the model was not pulled from {hub}: {reason}", where=request.what,
                       hint=hint or None, slug=slug)  # fmt: skip
