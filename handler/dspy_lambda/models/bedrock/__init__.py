"""Models on Amazon Bedrock, called by the function's own role: no key, no LiteLLM, no SDK."""
