"""Builds one LLM backend for one device into one verified wheel."""

from __future__ import annotations

__version__ = "0.1.0"
