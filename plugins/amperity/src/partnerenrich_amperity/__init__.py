"""Amperity for partnerenrich."""
