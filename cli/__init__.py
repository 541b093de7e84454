"""The command line: every command parses, builds one config, calls one function and prints one summary."""
