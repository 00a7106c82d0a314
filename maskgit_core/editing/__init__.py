"""From painted pixels to masked tokens, and from tokens back into the photo.

Imports `data.images` and `decoding`. One more kind of edit is a function in `plan` that returns
an `EditPlan`.
"""
