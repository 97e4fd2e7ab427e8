"""Several machines: their list, the command of each, and the way to them."""
