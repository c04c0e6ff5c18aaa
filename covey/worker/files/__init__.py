"""Tensors in files: mapped, read and written block by block."""
