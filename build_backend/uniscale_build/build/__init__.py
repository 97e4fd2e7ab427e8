"""From a plan to a payload: tools, recipes, compilers, and what came out."""
