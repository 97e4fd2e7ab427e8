"""Sealed layers: encrypted for their recipients, signed by their owner."""
