"""Models of a coordinator's runs between nodes: what others call (`listener`), and both ways together (`exchange`)."""
