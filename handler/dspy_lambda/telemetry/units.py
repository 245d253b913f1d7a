"""The metrics that a function writes, each with its unit for CloudWatch. What is not here cannot be written."""

# CloudWatch's units: Duration in milliseconds, CostUSD in US dollars. The reference in docs/ is made from this table.
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html
UNITS = {
    "Calls": "Count",
    "Errors": "Count",
    "RateLimited": "Count",
    "Duration": "Milliseconds",
    "InputTokens": "Count",
    "OutputTokens": "Count",
    "CostUSD": "None",
    "LMCalls": "Count",
    "ColdStart": "Count",
    "RecordsFailed": "Count",
    "LoopBlocked": "Count",
    "Stuck": "Count",
    "LateAnswers": "Count",
}
