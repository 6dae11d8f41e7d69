"""Richards flow through a batch of independent columns, a whole trajectory as one operation."""
