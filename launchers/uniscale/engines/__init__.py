"""Engines as data: what one is, how it says vLLM's words, which flags it takes."""
