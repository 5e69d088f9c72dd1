"""Prediction with exported models: photographs, camera, web page, deployment; without torch and Prefect."""
