"""Flows compose tasks; the command line starts flows."""
