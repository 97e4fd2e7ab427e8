"""Payloads and wheels: found, chosen, installed, examined, taken out."""
