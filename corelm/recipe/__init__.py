"""Recipes: YAML in, a validated pipeline out, and one clear message for everything that is wrong."""
