"""Whose record and files these are, and copies of both that are whole."""
