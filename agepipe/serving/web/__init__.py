"""The page that shows age ranges in a browser, and who may open it."""
