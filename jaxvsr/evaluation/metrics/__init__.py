"""Each benchmark's own metric, and how sure a mean is."""
