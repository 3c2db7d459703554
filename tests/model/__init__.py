"""The protocol in Promela: `python -m model` in tests/, or `make model`."""
