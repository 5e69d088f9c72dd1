"""Networks are built fresh, trained, searched and exported."""
