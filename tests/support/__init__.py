"""What tests share: fakes, contracts, helpers, peers."""
