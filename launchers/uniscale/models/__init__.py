"""What is to be run: a model of this machine, one that the wheel carries, or one to be brought."""
