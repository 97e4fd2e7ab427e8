"""Tests of the launchers: real child processes throughout."""
