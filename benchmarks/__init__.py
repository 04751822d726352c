"""Every figure that the project claims, as a command that prints it beside its floor and its peers."""
