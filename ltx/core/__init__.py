"""The nouns, and the promises about them: what is trained, how, and what must hold."""
