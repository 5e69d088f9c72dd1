"""Faces in a picture, and their landmarks."""
