"""The errors that users see: what happened, where, and what to do about it.

Standard library only: the hooks and the launchers import this module first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class UniscaleError(Exception):
    """A failure that is told as sentences, never as a traceback.

    ``what`` says what is wrong, ``where`` the file (and line) or address, ``hint`` what to do.
    ``slug`` is a stable name for scripts; ``exit_code`` belongs to the class.
    """

    exit_code = 1
    slug = "error"

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        hint: str | None = None,
        slug: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint
        if slug is not None:
            self.slug = slug

    def findings(self) -> tuple[UniscaleError, ...]:
        """The single errors in this one, in the order in which they are told."""
        return (self,)

    def render(self) -> str:
        """The text for a terminal: one block, no traceback."""
        lines = [f"error[{self.slug}]: {self.what}"]
        if self.where:
            lines.append(f"  --> {self.where}")
        if self.hint:
            first, *rest = self.hint.splitlines()
            lines.append(f"  hint: {first}")
            lines.extend(f"        {line}" for line in rest)
        return "\n".join(lines)

    def as_json(self) -> dict[str, object]:
        """The same facts for ``--json``."""
        return {
            "slug": self.slug,
            "exit_code": self.exit_code,
            "what": self.what,
            "where": self.where,
            "hint": self.hint,
        }

    def __str__(self) -> str:
        return self.render()


class SettingsError(UniscaleError):
    """A config-setting, option or environment variable that cannot be used."""

    exit_code = 2
    slug = "settings"


class ManifestError(UniscaleError):
    """A manifest (or layer.yaml) that does not say what it must."""

    exit_code = 3
    slug = "manifest"


class SourceError(UniscaleError):
    """Pinned source that cannot be had, or is not what the pin says."""

    exit_code = 4
    slug = "source"


class LayerError(UniscaleError):
    """A layer or patch that is unsafe, malformed, or does not fit its base."""

    exit_code = 5
    slug = "layer"


class ToolchainError(UniscaleError):
    """A compiler, SDK or tool that is missing or does not work."""

    exit_code = 6
    slug = "toolchain"


class CompileError(UniscaleError):
    """The upstream build failed."""

    exit_code = 7
    slug = "compile"


class WheelError(UniscaleError):
    """A payload or wheel that cannot be written or is not what it claims."""

    exit_code = 8
    slug = "wheel"


class StoreError(UniscaleError):
    """The cache, a lock, or the disk under them."""

    exit_code = 9
    slug = "store"


class UnsavedEditsError(UniscaleError):
    """Going on would lose an engineer's work."""

    exit_code = 10
    slug = "unsaved-edits"


class ConflictError(UniscaleError):
    """Layers do not fit the upstream that they are moved to."""

    exit_code = 11
    slug = "conflict"


class IndexSiteError(UniscaleError):
    """A wheel index that cannot be written, read or trusted."""

    exit_code = 12
    slug = "index"


class LaunchError(UniscaleError):
    """An engine that cannot be started or has died."""

    exit_code = 13
    slug = "launch"


class Problems(UniscaleError):
    """Several errors told at once; the exit code is the first one's."""

    slug = "problems"

    def __init__(self, errors: Iterable[UniscaleError]) -> None:
        self.errors = tuple(found for error in errors for found in error.findings())
        if not self.errors:
            raise ValueError("Problems needs at least one error")
        super().__init__(f"{len(self.errors)} problems")
        self.exit_code = self.errors[0].exit_code

    def findings(self) -> tuple[UniscaleError, ...]:
        """The single errors, in the order in which they were found."""
        return self.errors

    def render(self) -> str:
        """All of them, a blank line between."""
        return "\n\n".join(error.render() for error in self.errors)


def raise_all(errors: Sequence[UniscaleError]) -> None:
    """Raise nothing for no errors, the one error, or all of them as `Problems`."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise Problems(errors)


class Gathering:
    """A context: an error inside goes to ``errors``, to be told with the rest, and work goes on."""

    def __init__(self, errors: list[UniscaleError]) -> None:
        self._errors = errors

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, UniscaleError):
            return False
        self._errors += error.findings()
        return True


def some(names: Sequence[str], most: int) -> str:
    """The first ``most`` of the names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that names the nearest of ``known``, or lists them all when none is near."""
    import difflib  # only for the few who mistype

    names = sorted(set(known))
    lowered = {name.lower(): name for name in reversed(names)}
    near = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.55)
    if near:
        return f'did you mean "{lowered[near[0]]}"?'
    return f"known: {', '.join(names)}" if names else "there are none"
