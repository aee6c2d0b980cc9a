"""Random changes of lines and pages: small pure functions of a picture and a generator."""
