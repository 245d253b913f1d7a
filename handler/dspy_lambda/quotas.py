"""AWS quotas that several modules use."""

# How long API Gateway waits for its integration. REST: 29 s, and more for Regional APIs on request; HTTP API: 30 s.
# https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-execution-service-limits-table.html
INTEGRATION_SECONDS = {"rest": 29.0, "http": 30.0}
# "6 MB each for request and response"; Lambda's error message states the exact figure.
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MAX_ANSWER_BYTES = 6_291_556
# "At 1,769 MB, a function has the equivalent of one vCPU."
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
MB_PER_CORE = 1769
