"""The edge variant: a bundle scored in this process, without a server."""
