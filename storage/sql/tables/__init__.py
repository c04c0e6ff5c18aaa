"""The methods of `covey.storage.record.contract.Store` in SQL, a file a table.

Statements are built once, when a module is loaded; each method is one transaction.
"""
