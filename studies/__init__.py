"""Evidence for constants and recipes: each module is one command that prints the table a document quotes."""
