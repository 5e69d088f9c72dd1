"""Trials over settings and folds, and the strategies that choose among them."""
