"""Making and changing versions and refs, and what is kept tidy while that is done."""
