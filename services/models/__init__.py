"""The model registry for people: what models there are, which is the champion, and going back to an earlier one."""
