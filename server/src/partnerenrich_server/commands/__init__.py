"""One module for each command; its object ``command`` is found by `partnerenrich_server.cli`."""
