"""`make verify-aws`: proves claims that require a real account, on stacks that it deletes afterwards."""
