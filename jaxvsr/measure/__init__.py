"""What a step costs: by formula, by the compiler, by the clock."""
