"""The commands of the command line, a module each: its options, what it runs, what it prints."""
