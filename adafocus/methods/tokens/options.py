"""The options that only `method=tokens` reads."""

CHOICES = ("learned", "random", "uniform", "center", "difference", "unique")
