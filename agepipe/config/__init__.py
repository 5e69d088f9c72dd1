"""Settings: a class for each stage, the presets that fill them, and how and where the work is done."""
