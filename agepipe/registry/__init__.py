"""Runs and registered versions in MLflow: log, register, promote, look up."""
