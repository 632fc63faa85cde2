"""JSON and YAML documents to domain values and back, strict: HTTP, the command line, service manifests."""
