"""Images in and out: sources, formats, inputs, fitting, masks, saving. No HTTP and no API dialect."""
