"""Finds source distributions and wheels on the package index that the user's pip is set up for."""

from __future__ import annotations

import functools
import http.client
import json
import os
import re
import subprocess
import sys
import urllib.error
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import urldefrag, urljoin

from uniscale_build.errors import SourceError, did_you_mean
from uniscale_build.sources.download import open_url, without_secrets

_ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
_ENDINGS = (".tar.gz", ".zip", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True)
class IndexFile:
    """A file that the index lists; ``sha256`` is empty where the index does not tell."""

    name: str
    url: str
    sha256: str


@functools.cache
def index_urls() -> tuple[str, ...]:
    """The indexes to ask, in order: ours, pip's or uv's by environment, pip's by configuration."""
    env = os.environ
    given = [
        env.get(name, "")
        for name in ("UNISCALE_INDEX_URL", "PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL")
    ]
    urls = [next((url for url in given if url), "") or _pip_index()]
    if not env.get("UNISCALE_INDEX_URL"):
        urls += env.get("PIP_EXTRA_INDEX_URL", "").split()
        urls += _pip("config", "get", "global.extra-index-url").split()
    return tuple(dict.fromkeys(url.rstrip("/") + "/" for url in urls if url))


def _pip(*args: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "pip", *args],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return ran.stdout.strip() if ran.returncode == 0 else ""


def _pip_index() -> str:
    if configured := _pip("config", "get", "global.index-url"):
        return configured
    # pip tells its default in its help; we keep no address of our own.
    text = " ".join(_pip("install", "--help").split())
    found = re.search(r"Python Package Index \(default (\S+?)\)", text)
    if found is None:
        raise SourceError(
            "no package index is known",
            hint="install pip in this environment, or set UNISCALE_INDEX_URL to the address of a "
            "PEP 503 index",
            slug="no-index",
        )
    return found.group(1)


class _Links(HTMLParser):
    def __init__(self, base: str) -> None:
        super().__init__()
        self.base = base
        self.files: list[IndexFile] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href") if tag == "a" else None
        if href:
            url, fragment = urldefrag(urljoin(self.base, href))
            name = url.rsplit("/", 1)[-1]
            sha256 = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else ""
            self.files.append(IndexFile(name, url, sha256))


def project_files(project: str) -> list[IndexFile]:
    """Every file that the indexes list for ``project``; `SourceError` when none can be asked."""
    name = re.sub(r"[-_.]+", "-", project).lower()
    reasons, found = [], []
    for index in index_urls():
        url = f"{index}{name}/"
        try:
            with open_url(url, {"Accept": _ACCEPT}) as response:
                body, base = response.read(), response.geturl()
                kind = response.headers.get_content_type()
            found += _parse(body, base, kind)
        except SourceError as error:
            reasons.append(f"{without_secrets(url)}: {error.what}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            reasons.append(f"{without_secrets(url)}: {getattr(error, 'reason', error)}")
    if not found:
        raise SourceError(
            f"no package index gave the files of {project}",
            where="; ".join(reasons) or None,
            hint="check the network, or set UNISCALE_INDEX_URL to an index that can be reached",
            slug="no-network" if reasons else "no-project",
        )
    return found


def _parse(body: bytes, base: str, kind: str) -> list[IndexFile]:
    if kind.endswith("json"):
        try:
            return [
                IndexFile(
                    str(file["filename"]),
                    urljoin(base, str(file["url"])),
                    str(file.get("hashes", {}).get("sha256", "")),
                )
                for file in json.loads(body)["files"]
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            page = body.lstrip()[:1] == b"<"
            told = "a web page (is a login or a proxy in the way?)" if page else "something else"
            raise SourceError(
                f"gave {told} in place of a list of files", slug="bad-index"
            ) from error
    links = _Links(base)
    links.feed(body.decode("utf-8", "replace"))
    return links.files


def find_file(project: str, name: str) -> IndexFile:
    """The file ``name`` of ``project``."""
    files = project_files(project)
    for file in files:
        if file.name == name:
            return file
    endings = (".whl",) if name.endswith(".whl") else _ENDINGS
    sources = [file.name for file in files if file.name.endswith(endings)]
    raise SourceError(
        f"the package index has no {name}", hint=did_you_mean(name, sources), slug="no-file"
    )


def releases(project: str, kind: str = "sdist") -> dict[str, IndexFile]:
    """The files of ``project`` that a pin can name, by version, oldest first.

    Source distributions; with the kind "wheel" those wheels that hold no compiled code.
    """
    from packaging.utils import (
        InvalidSdistFilename,
        InvalidWheelFilename,
        parse_sdist_filename,
        parse_wheel_filename,
    )
    from packaging.version import InvalidVersion, Version

    found: dict[Version, IndexFile] = {}
    for file in project_files(project):
        try:
            if kind == "sdist":
                found[parse_sdist_filename(file.name)[1]] = file
            elif file.name.endswith("-none-any.whl"):
                found[parse_wheel_filename(file.name)[1]] = file
        except (InvalidSdistFilename, InvalidWheelFilename, InvalidVersion):
            continue  # of the other kind, or a name older than the rules
    return {str(version): found[version] for version in sorted(found)}
