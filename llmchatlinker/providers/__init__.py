"""The wire: how the kinds of provider are spoken to over HTTP."""
