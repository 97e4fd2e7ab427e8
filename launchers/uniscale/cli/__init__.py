"""The command line of ``uniscale``: one module a group of commands, work elsewhere."""
