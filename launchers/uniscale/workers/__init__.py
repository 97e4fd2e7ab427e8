"""Programs that torchrun or the launcher start in processes of their own; never imported by it."""
