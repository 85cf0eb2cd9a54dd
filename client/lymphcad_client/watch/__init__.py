"""A folder that is watched: each study that is dropped into it is scored, once."""
