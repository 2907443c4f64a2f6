"""The asynchronous client, and the one written by hand: `nas.client.derive` makes the blocking one of it."""
