"""Checking a run by what was signed of it: rows as the record has them, seals, receipts, and a bundle for others."""
