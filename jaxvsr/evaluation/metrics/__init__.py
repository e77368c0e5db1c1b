"""Each benchmark's own metric, and the uncertainty of a mean."""
