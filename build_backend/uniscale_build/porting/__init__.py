"""Layers on another upstream: replayed, merged, resolved, and how far they could go."""
