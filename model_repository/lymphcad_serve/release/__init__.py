"""Which bundle the cluster's clients get: the release file, the balancer's configuration, and `lymphcad promote`."""
