"""The handlers: each takes a call and what it asks for, and returns what a page shows and a program reads."""
