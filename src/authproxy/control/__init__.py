"""What a user or operator may ask, said once for every face and for the command line."""
