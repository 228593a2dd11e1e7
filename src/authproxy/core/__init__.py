"""What is true without a network: nouns, refusals, configuration, provider data, OAuth, policy, HTTP hygiene."""
