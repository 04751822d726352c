"""Batches for partners that take files: collect, seal, ship and settle; and why so few of the records match."""
