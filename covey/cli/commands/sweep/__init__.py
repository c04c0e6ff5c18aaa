"""`covey sweep`: values of a specification that are tried, and what came of them."""
