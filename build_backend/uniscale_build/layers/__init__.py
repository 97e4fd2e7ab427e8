"""Layers: their patches and overlays, read, looked through, applied and written."""
