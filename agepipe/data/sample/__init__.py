"""Drawn faces whose age can be read: `traits` decides who a face is, `source` makes the files, the rest paint."""
