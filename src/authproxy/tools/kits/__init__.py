"""The toolkits: a YAML page of rows for each, and beside it the functions that shape input and output."""
