"""What a maintainer's check looks at: every layer, offline."""
