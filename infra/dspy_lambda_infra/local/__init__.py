"""Emulates Lambda, API Gateway and SQS on one machine, around the real runtime client."""
