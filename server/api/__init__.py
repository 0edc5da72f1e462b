"""REST: one module per resource, models at the edge, middlewares around them."""
