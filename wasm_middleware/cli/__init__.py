"""The command line: a file checked, a module inspected, before a server runs either."""
