"""What requests and answers look like: pydantic models, and how rows become them."""
