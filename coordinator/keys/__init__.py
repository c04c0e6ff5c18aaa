"""The coordinator's own keys and certificate, made, kept and renewed."""
