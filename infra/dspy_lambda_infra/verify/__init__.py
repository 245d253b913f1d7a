"""`make verify-aws`: the claims that only a real account can prove, on a stack that is gone afterwards."""
