"""What closes one fault of Dramatiq each, named after what it does; none of it knows of payments."""
