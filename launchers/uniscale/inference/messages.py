"""Messages of a chat as OpenAI's API takes them, with images as content parts."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from uniscale_build.errors import SettingsError

_LARGEST = 32 << 20  # bytes of one image
_KINDS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
)
Message = dict[str, object]


def user(text: str, images: Sequence[str] = ()) -> Message:
    """What a user says; with ``images`` (files or addresses), these come first.

    Raises `SettingsError` for a file that is no image.
    """
    if not images:
        return {"role": "user", "content": text}
    parts: list[object] = [
        {"type": "image_url", "image_url": {"url": image_address(one)}} for one in images
    ]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def image_address(word: str) -> str:
    """An address as it is; a file as a ``data:`` address with its content."""
    if word.startswith(("http://", "https://", "data:")):
        return word
    path = Path(word).expanduser()
    try:
        if path.stat().st_size > _LARGEST:
            raise _bad(path, f"is larger than {_LARGEST >> 20} MiB")
        content = path.read_bytes()
    except OSError as error:
        raise _bad(path, f"cannot be read: {error.strerror}") from error
    kind = next((name for start, name in _KINDS if content.startswith(start)), None)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        kind = "image/webp"
    if kind is None:
        raise _bad(path, "is no PNG, JPEG, GIF, BMP or WebP")
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _bad(path: Path, what: str) -> SettingsError:
    return SettingsError(f"the image {path.name} {what}", where=str(path), slug="bad-image")
