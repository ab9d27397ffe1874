"""Benchmarks of fastfid against other FID tools. README.md describes how to run them and how to write a stage."""
