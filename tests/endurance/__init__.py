"""Hours of trouble, in minutes: what was pullable stays pullable, and what is served is true."""
