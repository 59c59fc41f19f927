"""Makes a Catalog real: links, generations, and an nginx that answers from them. The only writer."""
