"""What `throughput.py`, `growth.py` and `bench.py` are made of."""
