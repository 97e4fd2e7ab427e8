"""``uniscale train`` and ``export``: from data to weights that an engine serves."""
