"""Tables: sets of predictions side by side, a run's checkpoints, and the rows that papers print."""
