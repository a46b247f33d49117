"""Jobs: work that a provider has accepted and not finished."""
