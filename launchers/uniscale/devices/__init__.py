"""Devices at run time, and the chips of this machine."""
