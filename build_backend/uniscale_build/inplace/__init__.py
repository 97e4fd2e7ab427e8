"""In-place trees: patched upstream source that people edit, and what they changed, captured."""
