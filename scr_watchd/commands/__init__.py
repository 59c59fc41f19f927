"""The verbs of the command line, one a file. Each has ``parser()`` and ``run(arguments) -> status``."""
