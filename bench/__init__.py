"""The benchmark: authproxy beside other proxies, on one machine and at one time. Run it with `python -m bench`."""
