"""How every command looks and reaches its coordinator: help, options, JSON fields, connection."""
