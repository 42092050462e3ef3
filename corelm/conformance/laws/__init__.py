"""What each kind of part must satisfy: a module per kind, a folder where there is much to say."""
