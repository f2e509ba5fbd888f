"""The stand-alone verifier that every evidence pack carries: it uses the standard library and numpy alone."""
