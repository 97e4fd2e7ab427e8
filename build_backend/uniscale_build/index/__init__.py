"""A static index of wheels: what installers read, a catalog for `uniscale install`, a page."""

from uniscale_build.index.publish import Published, Request, publish

__all__ = ["Published", "Request", "publish"]
