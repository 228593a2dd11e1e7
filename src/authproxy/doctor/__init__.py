"""Findings: a pure function each, from configuration, facts and stored state to what will hurt and when."""
