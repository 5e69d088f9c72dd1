"""Photographs become a checked catalogue, labelled rows and a leak-proof split."""
