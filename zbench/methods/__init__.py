"""One owner a subject: cache methods, offload modes, dtypes, parallel degrees.

What each is called, costs, needs, and is in each tool's flags stands here and nowhere else. Nothing here imports torch
or runs anything, and nothing here knows a trial: callers give what a question needs.
"""
