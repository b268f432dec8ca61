"""Benchmarks: one file a subject, one command a claim (`python -m bench NAME`); see README.md."""
