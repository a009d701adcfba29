"""Programs of others that an engine starts, such as a server: their surroundings, their log, and their certain end."""
