"""Push-sum learning as a pure state machine of one node: SGP in lock step, overlapped, and asynchronous (AGP).

`events` and `actions` are plain values; `exchange` is the account and the peers, `machine` goes through the steps.
"""
