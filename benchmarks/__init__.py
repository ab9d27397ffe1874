"""Measures fastfid beside the tools it replaces; README.md says how to run it and how to write a stage."""
