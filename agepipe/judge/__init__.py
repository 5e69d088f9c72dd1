"""Models are judged on rows they have not seen, and every figure carries its doubt."""
