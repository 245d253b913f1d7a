"""Converse, Bedrock's API for models of every vendor, as an engine of DSPy's native backend.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""
