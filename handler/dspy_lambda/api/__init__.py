"""The FastAPI application behind Mangum: the programs' routes and the shared ones."""
