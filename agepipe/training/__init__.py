"""Networks are built fresh, trained, calibrated and exported."""
