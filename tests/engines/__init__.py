"""Real engines: built from pinned source with layers, installed, and run."""
