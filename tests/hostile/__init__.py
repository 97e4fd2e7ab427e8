"""Bad inputs: each is refused in a sentence, and nothing outside or inside has changed."""
