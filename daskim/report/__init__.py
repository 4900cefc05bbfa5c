"""What a finished run says to people: facts, figures, one HTML page, and tables for other tools."""
