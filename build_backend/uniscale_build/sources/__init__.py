"""Pinned upstream source: by whatever way it comes, verified, into the object store."""
