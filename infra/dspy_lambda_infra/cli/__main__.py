"""`python -m dspy_lambda_infra.cli`."""

import sys

from dspy_lambda_infra.cli import main

if __name__ == "__main__":
    sys.exit(main())
