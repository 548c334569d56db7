"""The command line, one file a group of commands. It may know every room, and no room knows it."""
