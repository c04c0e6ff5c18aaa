"""A node's own record on disk: what it finished and perhaps has not delivered, what it keeps of its runs, receipts."""
