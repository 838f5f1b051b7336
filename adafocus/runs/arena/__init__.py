"""`adafocus arena`: trains every way of choosing frames, patch locations or tokens at equal cost, and compares them."""
