"""Exported models answer for pictures; nothing here needs torch or Prefect."""
