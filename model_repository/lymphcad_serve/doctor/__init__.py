"""What is wrong with this machine, a bundle, a repository or a server, and what to do about it."""
