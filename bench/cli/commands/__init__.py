"""One module per command of ``bench``, each with ``main(args) -> exit code``; imported when the command is called."""
