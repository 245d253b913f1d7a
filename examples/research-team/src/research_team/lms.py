"""The two tiers: a quick one for what is done often, a strong one for what is done once."""

import dspy

FLASH = dspy.LM("openai/gpt-4.1-nano", max_parallel_requests=2000, timeout=120)
PRO = dspy.LM("openai/gpt-4.1-mini", max_parallel_requests=2000, timeout=120)
