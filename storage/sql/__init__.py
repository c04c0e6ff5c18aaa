"""The record in SQL, on SQLite or PostgreSQL."""
