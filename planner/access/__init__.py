"""Who gets in: TLS, tokens, roles."""
