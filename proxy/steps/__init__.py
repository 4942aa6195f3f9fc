"""The steps of a request, in the order in which proxy/pipeline.py takes them. Each is one file with one way in."""
