"""Planted bugs: small wrong parts, named after what is wrong, that the kit must catch."""
