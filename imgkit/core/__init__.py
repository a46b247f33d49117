"""The course of one call, written once for both services.

The room holds flows: generators that ask for I/O and do none. It knows no backend and no default plugin.
"""
