"""Wheels: written, read back, taken apart, trusted or refused."""
