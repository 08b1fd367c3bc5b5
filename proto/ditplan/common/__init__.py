"""What both sides do alike about connections, files of secrets, metrics and traces."""
