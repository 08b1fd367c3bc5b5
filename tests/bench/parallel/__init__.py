"""How much faster more ranks are."""
