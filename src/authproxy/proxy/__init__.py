"""The data plane: takes a request in, decides once, and lets it out with the user's credential."""
