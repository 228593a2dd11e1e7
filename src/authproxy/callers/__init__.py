"""Who is asking: each kind of credential that an agent or application may show."""
