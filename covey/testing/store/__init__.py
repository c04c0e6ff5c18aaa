"""The conformance suite of the store (`conformance.StoreConformance`), a file for each part of the contract.

`records` makes complete records for it, and for other tests.
"""
