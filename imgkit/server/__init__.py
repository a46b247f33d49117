"""A server with OpenAI's Images API in front of a service: `imgkit serve`."""
