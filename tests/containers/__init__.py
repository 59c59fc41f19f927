"""Images, and what runs of them, with a real dockerd."""
