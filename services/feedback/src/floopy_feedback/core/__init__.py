"""Heuristics over answers, and the rows and standings they give."""
