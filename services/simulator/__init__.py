"""Card payments of our own making: customers, terminals, fraud patterns, and labels that come late."""
