"""Tools that agents see: rows of data and small functions, run through the same walk as raw HTTP."""
