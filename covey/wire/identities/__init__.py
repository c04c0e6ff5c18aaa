"""Who is who, and what they sign: authority, keys and certificates, join tokens, statements in canonical JSON."""
