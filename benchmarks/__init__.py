"""One command each; prints a table and the ratio that it is about."""
