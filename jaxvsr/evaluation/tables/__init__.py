"""Tables: of predictions side by side, of a run's checkpoints, and the rows that papers print."""
