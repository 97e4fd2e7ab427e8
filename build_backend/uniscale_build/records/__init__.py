"""What a build says of itself: its record, its bill of materials, its provenance."""
