"""`adafocus arena`: trains every way of choosing frames, places or tokens at equal cost, and compares them."""
