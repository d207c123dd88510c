"""Polls providers, writes segments, emits line events, finalises and audits."""
