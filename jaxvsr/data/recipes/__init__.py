"""Questions about scans: tasks, one recipe per data set, and the work spread over many scans."""
