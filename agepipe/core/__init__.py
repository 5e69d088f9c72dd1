"""What every package uses: errors, records, files written atomically, progress, and where a result comes from."""
