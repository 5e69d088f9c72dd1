"""Models are evaluated on rows that they have not seen, and every figure has its interval."""
