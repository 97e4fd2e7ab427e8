"""Configurations: composed, read, checked; ours, FlagScale's, and vLLM's recipes."""
