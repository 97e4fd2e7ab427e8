"""The wheel matrix: what there is to build, what a change affects, and building all of it."""
