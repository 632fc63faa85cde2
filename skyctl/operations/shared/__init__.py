"""What several callers need: the context, lookups, candidates, outages, leadership, applying a deployment."""
