"""Leak tests of a tuned model, the leak certificate, and the gate.

An audit answers one question, "does this tuned model leak what it was tuned on?", with numbers that carry their error
rates. The statistics need numpy and scipy alone.
"""
