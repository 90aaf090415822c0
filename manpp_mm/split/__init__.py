"""Block-local training of one model in several processes, each of which trains some of the local blocks."""
