"""Who sends to whom at a step: the contract (`contract`), and a file a topology."""
