"""What runs on this machine: its record, its processes, their signals and their logs."""
