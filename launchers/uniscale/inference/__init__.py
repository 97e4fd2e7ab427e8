"""``uniscale infer``: a prompt, a file, a conversation."""
