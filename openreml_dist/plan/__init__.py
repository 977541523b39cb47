"""What a fit will cost, before anything is allocated: work, memory and time, from arithmetic alone."""
