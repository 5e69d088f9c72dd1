"""Pages, plots and tables that show what was found; one style for all of them."""
