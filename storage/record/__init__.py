"""What a store records (plain frozen values), and the contract of every store: small abstract classes, and `Store`.

No SQL here; `covey.storage.sql` keeps the contract, `covey.testing.store` tests whether a store does.
"""
