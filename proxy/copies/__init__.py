"""What of what jobs made lies outside, in the operator's bucket?"""
