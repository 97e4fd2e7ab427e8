"""How a patched tree becomes an install tree: one module a kind of recipe."""
