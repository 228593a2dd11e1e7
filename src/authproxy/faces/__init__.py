"""How the outside speaks to Control: JSON, browser pages, probes; thin, and independent of one another."""
