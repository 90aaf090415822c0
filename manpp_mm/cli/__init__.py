"""Code that the command-line tools share."""
