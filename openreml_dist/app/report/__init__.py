"""What a run leaves behind and shows: the terminal, tables, files, pictures, the run directory."""
