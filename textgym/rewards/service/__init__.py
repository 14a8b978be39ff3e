"""What rewards share that ask a service over HTTP: the client, its limits and its cache."""
