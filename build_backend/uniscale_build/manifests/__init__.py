"""What backends, devices and adaptations say: read, checked, found on this machine."""
