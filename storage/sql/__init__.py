"""The record in SQL, on SQLite or PostgreSQL: schema, connections, copies, backups and checks; `open_store` opens it.

The methods of the contract are in `tables`, a file a table; what older schemas need is in `migrations`.
"""
