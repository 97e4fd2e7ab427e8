"""``uniscale serve``: one engine, or several behind a gateway."""
