"""Outputs in another form than jobs made them: processes that convert, and a folder of what they made."""
