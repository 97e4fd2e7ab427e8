"""The command line of ``uniscale-build``: one module a group of commands, work elsewhere."""
