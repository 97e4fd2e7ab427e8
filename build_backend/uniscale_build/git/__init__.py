"""Git, shut off from the machine: its object database, its processes, its trees."""
