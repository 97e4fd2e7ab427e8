"""Bringing up a device or a backend: what is missing, first manifests, their schemas."""
