"""Facts about models: read from a checkpoint's configs or from the table of named checkpoints."""
