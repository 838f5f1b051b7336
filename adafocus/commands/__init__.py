"""Commands of the console: arguments in, text out. What they do lives in other rooms."""
