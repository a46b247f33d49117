"""The plugins that imgkit brings along."""
