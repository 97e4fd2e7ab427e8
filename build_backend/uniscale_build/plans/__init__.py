"""Plans: everything that a build will do, resolved before it begins."""
