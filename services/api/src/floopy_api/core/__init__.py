"""What the API decides, without knowing of HTTP or MongoDB."""
