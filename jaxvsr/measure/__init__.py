"""What a step costs: by formula, by the compiler's count, and measured."""
