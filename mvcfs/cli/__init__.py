"""The command line: the only place that reads the environment; builds the objects and passes them down."""
